"""Slot: what is a rollout worth, in its group?"""
