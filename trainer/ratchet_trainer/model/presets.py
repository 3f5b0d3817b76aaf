"""Built-in models: a table of names.

`tiny` is sized so that a laptop core makes a whole GRPO step in tens of milliseconds.
"""

from __future__ import annotations

from ratchet_trainer.data.tokenizer import VOCABULARY
from ratchet_trainer.model.architecture import Architecture, Layer

PRESETS = {
    "tiny": Architecture(
        vocabulary=VOCABULARY, width=64, heads=8, hidden=176, layers=(Layer(),) * 2, embedding_scale=8.0
    )
}
