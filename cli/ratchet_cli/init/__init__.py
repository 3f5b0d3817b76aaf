"""`ratchet init`: three answers become a manifest that can be trained.

answers.py   what may be answered, and what each answer means
lengths.py   how long questions and answers are, as far as a file or a task tells
writing.py   the manifest as commented YAML
"""
