"""Writes the data files of these recipes: questions of reasoning-gym, with running sums where they are worked out.

    python examples/recipes/data/write_tasks.py [FOLDER]

tasks.jsonl: sums, differences and products of two numbers of one digit, mixed, for warm-ups.
sums.jsonl: sums of three numbers, their running sums line by line, and the question as a warm-up asks it: every other
one with the first running sum as a hint, so that the model has seen both.
long-sums.jsonl: sums of four to six numbers and a solution in equations, one a line, for a pretrained model.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import reasoning_gym  # type: ignore[import-untyped]

HINTED = "{question}\n\nHint: {hint}"
"""As `rl.expansion: {kind: hints}` puts a hint unless `text` says otherwise."""


def drawn(size: int, seed: int, terms: tuple[int, int], digits: tuple[int, int], operators: str) -> list[Any]:
    """Different questions, `size` of them or all that were found in five times as many."""
    found = reasoning_gym.create_dataset(
        "basic_arithmetic",
        seed=seed,
        size=5 * size,
        min_terms=terms[0],
        max_terms=terms[1],
        min_digits=digits[0],
        max_digits=digits[1],
        operators=list(operators),
        allow_parentheses=False,
    )
    return list({entry["question"]: entry for entry in found}.values())[:size]


def numbers(question: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", question)]


def tasks() -> Iterable[dict[str, Any]]:
    kinds = [drawn(100, seed, (2, 2), (1, 1), operator) for seed, operator in enumerate("+-*")]
    for each in zip(*kinds, strict=False):
        for entry in each:
            yield {"question": entry["question"], "answer": entry["answer"]}


def sums() -> Iterable[dict[str, Any]]:
    for i, entry in enumerate(drawn(400, 3, (3, 3), (1, 1), "+")):
        running = [str(n) for n in accumulate(numbers(entry["question"]))][1:]
        asked = HINTED.format(question=entry["question"], hint=running[0]) if i % 2 else entry["question"]
        yield {
            "question": entry["question"],
            "answer": entry["answer"],
            "solution": "\n".join(running),
            "warmUp": asked,
        }


def long_sums() -> Iterable[dict[str, Any]]:
    for entry in drawn(400, 4, (4, 6), (1, 2), "+"):
        terms = numbers(entry["question"])
        lines = [f"{a} + {n} = {b}" for (a, b), n in zip(pairwise(accumulate(terms)), terms[1:], strict=True)]
        yield {"question": entry["question"], "answer": entry["answer"], "solution": "\n".join(lines)}


FILES: dict[str, Callable[[], Iterable[dict[str, Any]]]] = {
    "tasks.jsonl": tasks,
    "sums.jsonl": sums,
    "long-sums.jsonl": long_sums,
}


def text(name: str) -> str:
    """The content of a file of FILES: one JSON object a line."""
    return "".join(json.dumps(one) + "\n" for one in FILES[name]())


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name in FILES:
        (folder / name).write_text(text(name))
