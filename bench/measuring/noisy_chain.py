"""The noisy chain: a task whose accuracy at the start, at every state of a response, and after every hint is known.

10 states and 12 operators. An operator is a fixed permutation of the states, and beside it a fixed misconception:
another permutation that is wrong on every state. A prompt is `s0 o1 .. ok`, k slots for hints and `=`; the answer is
the k states that the operators lead through; right is the whole trace. A model that learned from traces whose steps are
right with probability q, each by itself, and copied where a hint shows the state, is right with probability

    q^k       at the start
    q^(k-j)   after j right steps, or with the first j slots filled
    0         after a wrong step

Operators are of three kinds: `noisy`, right with probability q; `sure`, always right; `impossible`, never. So shares of
a set may be solved, or out of reach, from the start.

Decides items and files; everything follows from `Chain`, drawn with NumPy's PCG64 from its seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

STATES, OPERATORS, LEVELS = 10, 12, 12
NAMES = "abcdefghijkl"
EMPTY, ASK = "_", "="
Kind = Literal["noisy", "sure", "impossible"]
SETS = {"sft": 1, "rl": 2, "held-out": 3, "solved": 4}
"""Of each set the number that its items are drawn with."""


@dataclass(frozen=True)
class Chain:
    """`k` steps, each right with probability `q`. The last `impossible` operators are never shown right, the `sure`
    ones before them never wrong."""

    k: int
    q: float
    seed: int = 0
    sure: int = 0
    impossible: int = 0

    def operators(self, kind: Kind) -> range:
        """The numbers of the operators of a kind."""
        first, second = OPERATORS - self.sure - self.impossible, OPERATORS - self.impossible
        return {"noisy": range(first), "sure": range(first, second), "impossible": range(second, OPERATORS)}[kind]

    def rate(self, operator: int) -> float:
        """How often a step by this operator is right in what is shown."""
        return (
            1.0 if operator in self.operators("sure") else 0.0 if operator in self.operators("impossible") else self.q
        )

    def value(self, done: int, kind: Kind = "noisy") -> float:
        """The chance that a trace ends right whose first `done` steps are, by a model that learned from `sft`."""
        return {"noisy": self.q, "sure": 1.0, "impossible": 0.0}[kind] ** (self.k - done)


def tables(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The permutations and the misconceptions, int[OPERATORS, STATES] each: from a state to the next one."""
    draw = np.random.default_rng([seed, 0])
    right = np.array([draw.permutation(STATES) for _ in range(OPERATORS)])
    wrong = []
    for of_right in right:
        other = draw.permutation(STATES)
        while (other == of_right).any():
            other = draw.permutation(STATES)
        wrong.append(other)
    return right, np.array(wrong)


def prompt(start: int, operators: list[int], shown: list[int]) -> str:
    """A prompt with the first slots filled."""
    slots = [*map(str, shown), *[EMPTY] * (len(operators) - len(shown))]
    return " ".join([str(start), *(NAMES[o] for o in operators), *slots, ASK])


def filled(k: int, level: int) -> int:
    """Slots that a level of hints fills, from 1 to LEVELS: ceil(k level / LEVELS)."""
    return -(-k * level // LEVELS)


def traces(chain: Chain, count: int) -> Iterator[dict[str, Any]]:
    """Items to imitate: half of them without hints, half with 1 to k slots filled."""
    right, wrong = tables(chain.seed)
    draw = np.random.default_rng([chain.seed, SETS["sft"]])
    for _ in range(count):
        start, operators = int(draw.integers(STATES)), _drawn(draw, list(range(OPERATORS)), chain.k)
        hints = int(draw.integers(1, chain.k + 1)) if draw.random() < 0.5 else 0
        truth, state, trace = _trace(right, start, operators), start, []
        for i, operator in enumerate(operators):
            is_right = draw.random() < chain.rate(operator)
            state = truth[i] if i < hints else int((right if is_right else wrong)[operator, state])
            trace.append(state)
        yield {"question": prompt(start, operators, truth[:hints]), "answer": " ".join(map(str, trace))}


def questions(chain: Chain, name: str, count: int, shares: Mapping[Kind, float]) -> Iterator[dict[str, Any]]:
    """Different items with their true answers and hints, `shares` of them of each kind, in an order without meaning.

    `hints` are LEVELS tiers of one text each, the whole prompt with more and more slots filled, so that a level takes
    the place of the prompt. Raises ValueError where the kind has no operator, or fewer items than are asked for.
    """
    right, _ = tables(chain.seed)
    draw = np.random.default_rng([chain.seed, SETS[name]])
    kinds: list[Kind] = [kind for kind, share in shares.items() for _ in range(round(share * count))]
    draw.shuffle(kinds)  # type: ignore[arg-type]
    seen: set[str] = set()
    for kind in kinds:
        of_kind = list(chain.operators(kind))
        if not of_kind:
            raise ValueError(f"no operator is {kind}; give Chain some, or set its share to 0")
        for _ in range(1000):
            start, operators = int(draw.integers(STATES)), _drawn(draw, of_kind, chain.k)
            question = prompt(start, operators, [])
            if question not in seen and _of_set(question) == (name in ("held-out", "solved")):
                break
        else:
            raise ValueError(f"set {name}: there are not {count} different items of {chain.k} steps; ask for fewer")
        seen.add(question)
        truth = _trace(right, start, operators)
        hints = [[prompt(start, operators, truth[: filled(chain.k, level)])] for level in range(1, LEVELS + 1)]
        yield {"question": question, "answer": " ".join(map(str, truth)), "hints": hints, "kind": kind}


def write(items: Iterator[dict[str, Any]], file: Path) -> Path:
    """The items as a file for `datasets[].jsonl`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(item) + "\n" for item in items))
    return file


def _of_set(question: str) -> bool:
    """Whether a question is kept from training: one in four, by its text, so that sets never meet."""
    return sum(i * ord(c) for i, c in enumerate(question, 1)) % 4 == 0


def _drawn(draw: np.random.Generator, among: list[int], k: int) -> list[int]:
    return [among[i] for i in draw.integers(len(among), size=k)]


def _trace(right: np.ndarray, start: int, operators: list[int]) -> list[int]:
    states, state = [], start
    for operator in operators:
        state = int(right[operator, state])
        states.append(state)
    return states
