"""Programs that are compiled ahead of their first call: what they are called and what the compiler gets of them.

Decides no more than that: who runs a program says which there are (`Sampler.programs`, `Learner.programs`,
`Critic.programs`); a stage puts them together (`step/stage_programs.py`), and either compiles them for the devices that
are here or has them looked at without any (`tools/fit.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

import jax

Program = tuple[str, jax.stages.Lowered]
"""A name for people, and the program for its shapes, lowered and not compiled."""

WEIGHTS, PREFILL, REFILL, DECODE = "sampling weights", "prefill", "refill", "decode"
LOG_PROBS, UPDATE = "log-probabilities", "update"
VALUES, CRITIC_UPDATE = "values", "critic update"


def compile_each(programs: Iterable[Program]) -> None:
    """Compiles them, or takes them from the cache, one after the other; each is lowered when its turn comes."""
    for _, lowered in programs:
        lowered.compile()
