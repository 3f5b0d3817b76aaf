"""Checkers of steps for rewards[].correctPrefix: one verdict for each line of a response."""

from __future__ import annotations

import re
from typing import Any

EQUATION = re.compile(r"(\d+) \+ (\d+) = (\d+)")


def running_sums(case: Any) -> list[bool]:
    """A line is right if the solution has it in that place; lines beyond those of the solution are wrong."""
    solution = case.item["solution"].splitlines()
    return [i < len(solution) and step.strip() == solution[i] for i, step in enumerate(case.steps)]


def equations(case: Any) -> list[bool]:
    """A line is right if it holds an equation of the solution, whatever else it says."""
    solution = set(case.item["solution"].splitlines())
    return [any(found[0] in solution for found in EQUATION.finditer(step)) for step in case.steps]
