"""Which layers are one loop's body: runs of layers that repeat.

Decides how the layers of a model are cut into runs. A run of many repeats is one `jax.lax.scan`, so that its body is
compiled once, however deep the model is; its weights and caches have the repeats along an axis. Layers that differ in
kind and repeat together (local and global attention in turns) are one body together. A layer that repeats nothing is a
run by itself, and no loop.

A loop is not free: weights are copied into the form that it reads, a stack. Where it pays, `computation` says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

LONGEST_PERIOD = 8
"""Most layers that are looked at as one pattern. Gemma 3 has 6."""


@dataclass(frozen=True)
class Run:
    """Layers first .. first + period * times - 1: a pattern of `period` layers, `times` times."""

    first: int
    period: int
    times: int

    @property
    def layers(self) -> range:
        return range(self.first, self.first + self.period * self.times)


def runs(layers: Sequence[Any], scanned: bool) -> tuple[Run, ...]:
    """Layers, in order, as runs; each a run by itself unless `scanned`."""
    if not scanned:
        return tuple(Run(i, 1, 1) for i in range(len(layers)))
    found, at = [], 0
    while at < len(layers):
        found.append(max(_patterns(layers, at), key=lambda run: (len(run.layers), -run.period)))
        at = found[-1].layers.stop
    return tuple(found)


def _patterns(layers: Sequence[Any], first: int) -> list[Run]:
    """What may begin with layer `first`: it alone, or what repeats at least once."""
    found = [Run(first, 1, 1)]
    for period in range(1, LONGEST_PERIOD + 1):
        pattern, end = layers[first : first + period], first + period
        while layers[end : end + period] == pattern and len(pattern) == period:
            end += period
        if end > first + period:
            found.append(Run(first, period, (end - first) // period))
    return found


def stacked(run: Run, weights: Callable[[int], Any], stack: Callable[..., Any]) -> tuple[Any, ...]:
    """The weights of a run's layers, one tree for each place in its pattern: with the repeats as the first axis, unless
    there is but one. `stack(path, *leaves)` makes one array of a parameter of several layers."""
    if run.times == 1:
        return tuple(weights(i) for i in run.layers)
    places = (run.layers[place :: run.period] for place in range(run.period))
    return tuple(jax.tree_util.tree_map_with_path(stack, *map(weights, place)) for place in places)


def through(
    run: Run, step: Callable[[Any, tuple[Any, ...], Any], tuple[Any, Any]], carry: Any, weights: tuple[Any, ...]
) -> tuple[Any, Any]:
    """What is carried behind a run of layers, and what each turn made, along a new first axis. step(carry, weights of
    the pattern's layers, number of the turn) -> carry, made. `weights` as `stacked` gives them."""
    if run.times == 1:
        carry, made = step(carry, weights, 0)
        return carry, jax.tree.map(lambda x: x[None], made)
    return jax.lax.scan(lambda carry, now: step(carry, *now), carry, (weights, jnp.arange(run.times)))
