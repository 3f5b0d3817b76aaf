"""Hints made of a text that an item has, such as its solution: the beginning of the text, step by step.

Decides how a text becomes hints. They are one tier of texts, least help first, each of which goes on where the one
before ends, as hints in tiers are shown (Scaf-GRPO, arXiv 2510.19807, section 3.2). The text is cut into one part more
than there are hints; the last part is never a hint, since it mostly says the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from ratchet_api.curation import MakeHints
from ratchet_trainer.algorithm.verifiers.steps import split

BETWEEN = {"lines": "\n", "sentences": " ", "paragraphs": "\n\n", "words": " "}
"""What steps of a hint are joined by."""


def hints_of(fields: Mapping[str, Any], settings: MakeHints) -> list[str]:
    """The hints of an item with these fields; none where it has no such text, or one of a single step. Of a text with
    fewer steps than parts, each step but the last is a hint."""
    text = fields.get(settings.from_)
    if not isinstance(text, str):
        return []
    steps = split(text, settings.steps)
    parts = min(settings.levels + 1, len(steps))
    ends = [len(steps) * i // parts for i in range(parts)] if parts else []
    joined = BETWEEN[settings.steps].join
    return [joined(steps[begin:end]) for begin, end in pairwise(ends)]
