"""Which slots a token sees, of a shared prompt and of its own response.

Decides the masks of attention, for one token and for many, with and without a window; the arithmetic is in `plain`,
`cpu` and `tpu`.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Sight:
    """What `tokens` new tokens see, the first of which lies in own slot `first`, one number or int32[P], of `slots`:
    itself, the own slots before it and the real ones of the prompt's `prompt_slots` (None: no prompt), the first
    `length` [P]; of all these at most the latest `window`."""

    tokens: int
    slots: int
    first: jax.Array | int = 0
    prompt_slots: int | None = None
    length: jax.Array | None = None
    window: int | None = None

    def masks(self) -> tuple[jax.Array, jax.Array | None]:
        """Which own slots each token sees, bool[1 or P, T, S], and which of the prompt, bool[P, 1 or T, C] (None
        without one)."""
        at = jnp.asarray(self.first)[..., None] + jnp.arange(self.tokens)  # own slot of each, [T] or [P, T]
        visible = jnp.arange(self.slots) <= at[..., None]
        if self.window is not None:
            visible = visible & (at[..., None] - jnp.arange(self.slots) < self.window)
        visible = visible if visible.ndim == 3 else visible[None]
        if self.prompt_slots is None:
            return visible, None
        assert self.length is not None
        slot = jnp.arange(self.prompt_slots)
        seen = (slot < self.length[:, None])[:, None]
        if self.window is not None:
            seen = seen & (self.length[:, None, None] + at[..., None] - slot < self.window)
        return visible, seen
