"""A checker of steps for rewards[].correctPrefix: a line is right if the solution has it in that place."""

from __future__ import annotations

from typing import Any


def check(case: Any) -> list[bool]:
    """One verdict for each step of the response; steps beyond those of the solution are wrong."""
    solution = case.item["solution"].splitlines()
    return [i < len(solution) and step.strip() == solution[i] for i, step in enumerate(case.steps)]
