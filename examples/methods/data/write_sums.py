"""Writes the data files of these examples: sums of reasoning-gym with their running sums, and a first step as a hint.

    python examples/methods/data/write_sums.py [FOLDER]

An item of sums.jsonl: the sum, its answer, the running sums line by line (what some warm-ups teach, and what steps are
compared with), the first of them as a hint, and the question as a warm-up asks it: every other one with its hint, so
that the model has seen both.
"""

from __future__ import annotations

import json
import re
import sys
from itertools import accumulate
from pathlib import Path
from typing import Any

import reasoning_gym  # type: ignore[import-untyped]

ITEMS = 400
HINTED = "{question}\n\nHint: {hint}"
"""As `rl.expansion: {kind: hints}` puts a hint unless `text` says otherwise."""


def item(number: int, question: str, answer: str) -> dict[str, Any]:
    numbers = [int(n) for n in re.findall(r"\d+", question)]
    sums = list(accumulate(numbers))[1:]
    assert str(sums[-1]) == answer, question
    hint = f"{numbers[0]} + {numbers[1]} = {sums[0]}"
    return {
        "question": question,
        "answer": answer,
        "solution": "\n".join(map(str, sums)),
        "hints": [hint],
        "warmUp": HINTED.format(question=question, hint=hint) if number % 2 else question,
    }


def sums() -> list[dict[str, Any]]:
    """Sums of three numbers of one digit, each once."""
    drawn = reasoning_gym.create_dataset(
        "basic_arithmetic",
        seed=1,
        size=5 * ITEMS,
        **{"min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 1},
        operators=["+"],
        allow_parentheses=False,
    )
    asked = {entry["question"]: entry["answer"] for entry in drawn}
    found = [item(i, question, answer) for i, (question, answer) in enumerate(asked.items()) if i < ITEMS]
    assert len(found) == ITEMS
    return found


FILES = {"sums.jsonl": sums}


def text(name: str) -> str:
    """The content of a file of FILES: one JSON object a line."""
    return "".join(json.dumps(one) + "\n" for one in FILES[name]())


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name in FILES:
        (folder / name).write_text(text(name))
