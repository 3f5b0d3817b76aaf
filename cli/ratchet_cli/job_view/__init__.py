"""What a job in a cluster does, and why: gathered from its status, pods, events and metrics, and shown.

    gather (asks) -> document (plain data, the answer of `status -o json`) -> screen, table or chart (text)

Everything between `gather` and the terminal is pure, the time included.
"""
