"""The work that whole runs are measured with: a model folder and questions of the reference shape, drawn from a seed.

8 prompts of 16 tokens a step with 8 responses of exactly 32 tokens each, a model of 2.5 million parameters. Two things
are made so that every step does all of it, in any trainer that reads the folder:

* No response ends early: the embedding of the end token points away from all others, so it is never drawn.
* No group is without something to learn: a token's text is "" or, one time in 32, "y", and right is a single "y" in
  the whole response, which a third of all responses of the untrained model have.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from measuring import llama_folder
from measuring.llama_folder import Sizes, random_tensors

VOCABULARY, SIZES = 512, Sizes(width=256, heads=8, hidden=704, layers=3)
PROMPTS, SAMPLES, PROMPT_TOKENS, RESPONSE_TOKENS = 8, 8, 16, 32
TOKENS = PROMPTS * SAMPLES * RESPONSE_TOKENS
END = 2
ANSWER = "y"
QUESTIONS = 512
WITHOUT_NUMBERS = {
    "type": "Sequence",
    "decoders": [{"type": "Replace", "pattern": {"Regex": "_?[0-9]+"}, "content": ""}, {"type": "Fuse"}],
}
LEARNING_RATE = "0.000001"
"""So small that the policy stays what it was, and the last measured step does what the first one does."""


def write(folder: Path) -> Path:
    """The model, and `questions.jsonl` beside its files."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    texts = [f"y{i}" if i % 32 == 31 else f"_{i}" for i in range(VOCABULARY)]
    embedding = draw.normal(0, 0.02, (VOCABULARY, SIZES.width)).astype(np.float32)
    embedding += 0.02
    embedding[END] = -1
    tensors = random_tensors(draw, SIZES, embedding, outputs=0.01)
    named = {"end": END, "unknown": texts[0], "rope_theta": 1e6, "max_position_embeddings": 1024}
    llama_folder.write(folder, SIZES, tensors, texts, decoder=WITHOUT_NUMBERS, **named)
    others = [text for i, text in enumerate(texts) if i > END]
    asked = (" ".join(draw.choice(others, PROMPT_TOKENS)) for _ in range(QUESTIONS))
    lines = (json.dumps({"question": question, "answer": ANSWER}) for question in asked)
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n")
    return folder
