"""What the outcomes of a whole group say: that no verifier answered, that all is right, or that all is wrong.

Decides by accuracy alone: a part of the reward that differs within a group, such as one for form, hides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ratchet_trainer.algorithm.types import Disposition, Group


def unanswered(group: Group) -> bool:
    """Whether no verifier said anything of any of its responses."""
    return all(r.outcome.status in ("timeout", "crash") for r in group.rollouts)


def right_responses(group: Group) -> int:
    """How many of its responses are right."""
    return sum(r.outcome.accuracy == 1.0 for r in group.rollouts)


def verified(groups: Sequence[Group]) -> tuple[list[Group], list[Group]]:
    """The groups of which at least one response was verified, and the others: where no verifier answered at all, zeros
    would teach that everything is wrong."""
    failed = [replace(g, disposition="failed") for g in groups if unanswered(g)]
    return [g for g in groups if not unanswered(g)], failed


def constant(group: Group) -> Disposition | None:
    """`all_right` or `all_wrong`; None for a group that has right and wrong responses."""
    right = right_responses(group)
    if 0 < right < len(group.rollouts):
        return None
    return "all_right" if right else "all_wrong"
