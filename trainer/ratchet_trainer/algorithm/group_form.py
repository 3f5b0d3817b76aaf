"""Groups as plain data and arrays: the form that rollouts have in a checkpoint.

Decides what of a rollout is kept: all of it, floats as float.hex(). Numbers of every row and token are arrays, [R, T]
with 0 after a response's end; the rest is plain JSON, in which a prompt that many rollouts share stands once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.types import Draw, Group, Outcome, Request, Rollout
from ratchet_trainer.data.prompt import Prompt

Plain = dict[str, Any]


def written(groups: Sequence[Group], slots: int) -> tuple[Plain, dict[str, np.ndarray]]:
    """Plain data and arrays of the groups, whose responses have at most `slots` tokens. The old policy's
    log-probabilities are kept where every rollout has them."""
    rollouts = [r for g in groups for r in (*g.rollouts, *g.replaced)]
    arrays = {
        "response": _padded([np.array(r.response, np.int32) for r in rollouts], slots),
        "behaviour": _padded([r.behaviour_logp for r in rollouts], slots),
        "entropy": _padded([r.entropy for r in rollouts], slots),
    }
    old = [r.old_logp for r in rollouts if r.old_logp is not None]
    if rollouts and len(old) == len(rollouts):
        arrays["old_logp"] = _padded(old, slots)
    asked = {(r.request, r.prompt, r.trained_prompt): None for r in rollouts}
    index = {key: i for i, key in enumerate(asked)}
    plain = {
        "asked": [
            [asdict(request), asdict(prompt), None if trained == prompt else asdict(trained)]
            for request, prompt, trained in asked
        ],
        "groups": [
            {
                "draw": asdict(group.draw),
                "disposition": group.disposition,
                "rewards": _in_hex(group.rewards),
                "parts": {name: _in_hex(values) for name, values in group.parts.items()},
                "firstRewards": _in_hex(group.first_rewards),
                "firstParts": {name: _in_hex(values) for name, values in group.first_parts.items()},
                **{
                    name: [_rollout(r, index[r.request, r.prompt, r.trained_prompt]) for r in rollouts]
                    for name, rollouts in {"rollouts": group.rollouts, "replaced": group.replaced}.items()
                },
            }
            for group in groups
        ],
    }
    return plain, arrays


def read(plain: Plain, arrays: Mapping[str, np.ndarray]) -> list[Group]:
    """The groups that `written` wrote down."""
    asked = [(request_of(request), _prompt(shown), _prompt(other or shown)) for request, shown, other in plain["asked"]]
    rows = iter(range(len(arrays["response"])))

    def back(rollout: Plain) -> Rollout:
        request, shown, trained_prompt = asked[rollout["asked"]]
        return _back(request, shown, trained_prompt, rollout, arrays, next(rows))

    return [
        Group(
            Draw(**group["draw"]),
            tuple(map(back, group["rollouts"])),
            _floats(group["rewards"]),
            {name: _floats(values) for name, values in group["parts"].items()},
            group["disposition"],
            tuple(map(back, group["replaced"])),
            _floats(group["firstRewards"]),
            {name: _floats(values) for name, values in group["firstParts"].items()},
        )
        for group in plain["groups"]
    ]


def _padded(rows: Iterable[np.ndarray], slots: int) -> np.ndarray:
    return np.stack([np.pad(row, (0, slots - len(row))) for row in rows])


def _in_hex(numbers: Iterable[float]) -> list[str]:
    return [float(number).hex() for number in numbers]


def _floats(numbers: Iterable[str]) -> tuple[float, ...]:
    return tuple(map(float.fromhex, numbers))


def in_hex(numbers: Mapping[str, float]) -> dict[str, str]:
    return {name: float(value).hex() for name, value in numbers.items()}


def floats(numbers: Mapping[str, str]) -> dict[str, float]:
    return {name: float.fromhex(value) for name, value in numbers.items()}


def _rollout(rollout: Rollout, asked: int) -> Plain:
    outcome = rollout.outcome
    exact = in_hex({"accuracy": outcome.accuracy, "score": outcome.score}) | {"parts": in_hex(outcome.parts)}
    return {
        "asked": asked,
        "length": len(rollout.response),
        "sample": rollout.sample,
        "version": rollout.version,
        "finish": rollout.finish,
        "forced": rollout.forced,
        "outcome": asdict(outcome) | exact,
    }


def _back(
    request: Request,
    prompt: Prompt,
    trained_prompt: Prompt,
    plain: Plain,
    arrays: Mapping[str, np.ndarray],
    row: int,
) -> Rollout:
    length, outcome = plain["length"], plain["outcome"]
    exact = floats({name: outcome[name] for name in ("accuracy", "score")}) | {"parts": floats(outcome["parts"])}
    return Rollout(
        request,
        prompt,
        trained_prompt,
        plain["sample"],
        tuple(arrays["response"][row, :length].tolist()),
        arrays["behaviour"][row, :length],
        arrays["entropy"][row, :length],
        plain["version"],
        plain["finish"],
        Outcome(**outcome | exact),
        plain["forced"],
        arrays["old_logp"][row, :length] if "old_logp" in arrays else None,
    )


def request_of(plain: Plain) -> Request:
    """A request of what `dataclasses.asdict` made of it."""
    typed = {"draw": Draw(**plain["draw"]), "purpose": Purpose(plain["purpose"]), "prefix": tuple(plain["prefix"])}
    return Request(**plain | typed)


def _prompt(plain: Plain) -> Prompt:
    return Prompt(**plain | {"tokens": tuple(plain["tokens"])})
