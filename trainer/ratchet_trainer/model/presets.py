"""Built-in models: a table of names.

`tiny` is sized so that a laptop core makes a whole GRPO step in tens of milliseconds.
"""

from __future__ import annotations

from ratchet_trainer.data.tokenizer import VOCABULARY
from ratchet_trainer.model.decoder import Architecture

PRESETS = {"tiny": Architecture(vocabulary=VOCABULARY, width=64, layers=2, heads=8, hidden=176)}
