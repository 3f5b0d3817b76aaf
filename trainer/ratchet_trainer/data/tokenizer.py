"""The built-in byte tokenizer of the presets: 256 bytes, then beginning, end and padding.

A prompt is BEGIN and the bytes of its text; a response is bytes and END. Reversible for every text.
"""

from __future__ import annotations

from collections.abc import Sequence

BEGIN, END, PAD = 256, 257, 258
VOCABULARY = 259
DIGEST = "bytes-v1"
"""Identity of this tokenizer; it changes with the meaning of any token."""


def encode_prompt(text: str) -> list[int]:
    return [BEGIN, *text.encode()]


def encode_answer(text: str) -> list[int]:
    return [*text.encode(), END]


def decode(tokens: Sequence[int]) -> str:
    """The text before END. Tokens that are no bytes become U+FFFD, which no sensible answer contains."""
    out: list[str] = []
    run = bytearray()
    for token in tokens:
        if token == END:
            break
        if token < 256:
            run.append(token)
            continue
        out += [run.decode(errors="replace"), "\N{REPLACEMENT CHARACTER}"]
        run.clear()
    return "".join([*out, run.decode(errors="replace")])
