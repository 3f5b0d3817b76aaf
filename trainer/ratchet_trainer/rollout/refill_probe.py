"""Whether a response depends on when and where it is made: a probe row is sampled twice, and every bit compared.

Once it is the first one in its slot, with free slots beside it; once it takes the last slot after somebody else, while
the others are in the middle of theirs. Decides the answer from the programs and the machine alone: the weights of the
probe are a fixed pattern, so that every restart decides alike.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ratchet_trainer.algorithm import keys
from ratchet_trainer.model.policy import lay_out_prompts
from ratchet_trainer.model.sharding import Params
from ratchet_trainer.rollout.batch_slots import BatchSlots
from ratchet_trainer.rollout.endings import Endings
from ratchet_trainer.rollout.refill import Refilling
from ratchet_trainer.rollout.sampler import Sampled, Sampler, chunk_of
from ratchet_trainer.rollout.truncation import Truncation


def refilled_alike(
    sampler: Sampler,
    shapes: Params,
    at_a_time: int,
    prompt_slots: int,
    samples: int,
    slots: int,
    cut: Truncation | None,
) -> bool:
    """Whether a refilled slot gives the bits of one that was not, in programs of these sizes. `shapes` are the
    parameters'. Three chunks are decoded."""
    made = jax.jit(partial(_pattern, shapes), out_shardings=jax.tree.map(lambda leaf: leaf.sharding, shapes))()
    params = jax.tree.map(_of_pieces, made)
    count = chunk_of(at_a_time * samples, slots, equal=True)

    def sample(limits: list[int]) -> Sampled:
        """Prompts with these limits, the last of which is always the same."""
        n = len(limits)
        prompts = [tuple((5 * i + j) % 8 for j in range(1 + i % prompt_slots)) for i in range(-n, 0)]
        return Refilling(
            sampler,
            params,
            keys.seed_words(0),
            lay_out_prompts(prompts, n, prompt_slots),
            keys.row_words(keys.Purpose.EVAL, [2**32 - n + i for i in range(n)], [0] * n),
            np.arange(samples),
            slots,
            1.0,
            BatchSlots(n, at_a_time),
            [Endings(sampler.ends, np.full((1, samples), limit)) for limit in limits],
            cut=cut,
        ).finish()

    longer = min(2 * count, slots)
    others = [longer] * (at_a_time - 1) + [count]
    if longer == count:  # all slots are free at once: who comes last takes the last one
        others += [count] * (at_a_time - 1)
    first, later = sample([count]), sample([*others, count])
    return all(
        np.array_equal(getattr(first, name)[-1], getattr(later, name)[-1])
        for name in ("tokens", "log_probs", "entropy")
    )


def _pattern(shapes: Params) -> Params:
    """Weights as large as usual ones, which look random."""

    def one(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        n = jax.lax.iota(jnp.uint32, leaf.size).reshape(leaf.shape) * jnp.uint32(2654435761)
        n = (n ^ (n >> 15)) * jnp.uint32(2246822519)
        noise = ((n ^ (n >> 13)) >> 8).astype(jnp.float32) / (1 << 23) - 1
        weight: jax.Array = noise * leaf.shape[-1] ** -0.5 if len(leaf.shape) > 1 else 1 + noise / 4
        return weight.astype(leaf.dtype)

    weights: Params = jax.tree.map(one, shapes)
    return weights


def _of_pieces(leaf: jax.Array) -> jax.Array:
    """The array as one that was read lies: with one device a jitted function's result lies otherwise, as far as its
    pieces are asked, and all programs of mode Exact would be compiled again."""
    pieces = [jax.device_put(piece.data, piece.device) for piece in leaf.addressable_shards]
    return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, pieces)
