"""The model of the noisy chain: a folder in Hugging Face layout, width 128, two layers, a token a word.

Decides vocabulary and sizes; the random weights follow from the seed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from measuring import llama_folder
from measuring.llama_folder import Sizes, random_tensors
from measuring.noisy_chain import ASK, EMPTY, NAMES, STATES

SIZES = Sizes(width=128, heads=4, hidden=352, layers=2)
WORDS = ["<end>", EMPTY, ASK, *map(str, range(STATES)), *NAMES]
VOCABULARY = 32


def write(folder: Path, seed: int = 0) -> Path:
    """The model before it has learned anything."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [*WORDS, *(f"<unused-{i}>" for i in range(VOCABULARY - len(WORDS)))]
    draw = np.random.default_rng([seed, 99])
    embedding = draw.normal(0, 0.05, (VOCABULARY, SIZES.width)).astype(np.float32)
    tensors = random_tensors(draw, SIZES, embedding)
    named = {"end": 0, "unknown": EMPTY, "rope_theta": 1e4, "max_position_embeddings": 256}
    llama_folder.write(folder, SIZES, tensors, texts, **named)
    return folder
