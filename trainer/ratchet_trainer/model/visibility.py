"""Which slots a token sees, of a shared prompt and of its own response.

Decides the masks of attention, for one token and for many, with and without a window; the arithmetic is in `plain` and
`cpu`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def masks(
    tokens: int,
    slots: int,
    first: jax.Array | int,
    prompt_slots: int | None,
    length: jax.Array | None,
    window: int | None,
) -> tuple[jax.Array, jax.Array | None]:
    """Of `tokens` new tokens, the first of which lies in own slot `first`, one number or int32[P]: which own slots
    each sees, bool[1 or P, T, S], and which of the prompt, bool[P, 1 or T, C] (None without a prompt).

    A token sees itself, the own slots before it and the prompt's real ones, the first `length` [P]; of all these at
    most the latest `window`.
    """
    at = jnp.asarray(first)[..., None] + jnp.arange(tokens)  # own slot of each, [T] or [P, T]
    visible = jnp.arange(slots) <= at[..., None]
    if window is not None:
        visible = visible & (at[..., None] - jnp.arange(slots) < window)
    visible = visible if visible.ndim == 3 else visible[None]
    if prompt_slots is None:
        return visible, None
    assert length is not None
    slot = jnp.arange(prompt_slots)
    seen = (slot < length[:, None])[:, None]
    if window is not None:
        seen = seen & (length[:, None, None] + at[..., None] - slot < window)
    return visible, seen
