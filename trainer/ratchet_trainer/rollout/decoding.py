"""What runs on a device when responses are sampled: reading prompts, decoding, and putting new prompts into free slots.

Decides the arithmetic of sampling at fixed shapes; how often which of it runs, and where, is the sampler's matter. A
prompt's slot is its place [p] in a `Decoding`, for its whole group of G responses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from ratchet_trainer.algorithm import keys
from ratchet_trainer.data.tokenizer import FILLER
from ratchet_trainer.model import kv_cache
from ratchet_trainer.model.policy import Policy, Prompts, log_prob_and_entropy
from ratchet_trainer.model.sharding import Params
from ratchet_trainer.rollout.drawing import drawn, noise_size
from ratchet_trainer.rollout.truncation import Truncation, staying

if TYPE_CHECKING:
    from ratchet_trainer.model.decoder import Turns

NOISE_AHEAD = 16 << 20
"""Noise of a whole chunk is drawn at once if it is not more numbers than this: one large computation instead of many
small ones, with the same bits."""


Carried = tuple[tuple[kv_cache.Pair, ...], jax.Array, jax.Array]
"""From token to token: caches, the newest token and whether it ended."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Decoding:
    """Responses in the making: caches, raw row keys uint32[P, G, 2], the newest token and whether it ended, [P, G]."""

    prompt: kv_cache.Prompt
    own: tuple[kv_cache.Pair, ...]
    keys: jax.Array
    token: jax.Array
    done: jax.Array


def start(
    policy: Policy, params: Params, seed: jax.Array, prompts: Prompts, rows: jax.Array, samples: jax.Array, slots: int
) -> Decoding:
    shape = (rows.shape[0], samples.shape[0])
    return Decoding(
        prompt=policy.read(params, prompts),
        own=policy.empty_cache(*shape, slots),
        keys=keys.row_keys(seed, rows, samples),
        token=jnp.broadcast_to(prompts.last[:, None], shape),
        done=jnp.zeros(shape, bool),
    )


def decode(
    policy: Policy,
    ends: tuple[int, ...],
    params: Params,
    state: Decoding,
    at: jax.Array,
    temperature: jax.Array,
    cut: Truncation | None,
    count: int,
    reach: int | None = None,
) -> tuple[Decoding, jax.Array]:
    """`count` more tokens from response position `at`, one or int32[P]; tokens, log-probs and entropy as float32[3, P,
    G, count]. Of the own slots the first `reach` are read (None: all): no token may lie behind them.
    Log-probs are those of what is drawn from, entropy is the whole policy's.

    One array, because every process gets it whole and each collective costs a wait (token numbers are exact below
    2^24).
    """
    model = policy.decoder(params)
    size = noise_size(policy.architecture.vocabulary)
    tokens = jnp.moveaxis(at[..., None] + jnp.arange(count), -1, 0)

    def noise(t: jax.Array) -> jax.Array:
        return keys.gumbel(state.keys, t, size)

    at_once = count * state.token.size * size <= NOISE_AHEAD
    noises = jax.vmap(noise)(tokens) if at_once else None
    positions = state.prompt.length + (tokens if tokens.ndim > 1 else tokens[:, None])
    turns = model.turns(positions[..., None, None])

    def one(carry: Carried, now: tuple[jax.Array, Turns, jax.Array | None]) -> tuple[Carried, tuple[jax.Array, ...]]:
        own, token, done = carry
        t, by, ahead = now
        hidden, own = model(token[..., None], by, state.prompt, own, t, reach)
        logits = model.logits(hidden[..., 0, :])
        scaled = logits / temperature
        if cut is not None:
            scaled = jnp.where(staying(scaled, cut), scaled, -jnp.inf)
        chosen = drawn(scaled, noise(t) if ahead is None else ahead)
        log_prob, entropy = log_prob_and_entropy(logits, chosen, temperature)
        if cut is not None:
            log_prob = jnp.take_along_axis(jax.nn.log_softmax(scaled, -1), chosen[..., None], -1)[..., 0]
        out = jnp.where(done, FILLER, chosen), jnp.where(done, 0.0, log_prob), jnp.where(done, 0.0, entropy)
        return (own, out[0], done | jnp.isin(out[0], np.array(ends))), out

    (own, token, done), outs = jax.lax.scan(one, (state.own, state.token, state.done), (tokens, turns, noises))
    made = jnp.stack([jnp.moveaxis(x.astype(jnp.float32), 0, -1) for x in outs])
    return Decoding(state.prompt, own, state.keys, token, done), made


def empty(
    policy: Policy, params: Params, seed: jax.Array, prompts: Prompts, rows: jax.Array, samples: jax.Array, slots: int
) -> Decoding:
    """What `start` gives of the same, but zeros: slots that nobody has."""
    shapes = jax.eval_shape(partial(start, policy, slots=slots), params, seed, prompts, rows, samples)
    zero = rows[0, 0] * 0  # of an argument, so that the state lies where the arguments do
    zeros: Decoding = jax.tree.map(lambda leaf: jnp.full(leaf.shape, zero.astype(leaf.dtype)), shapes)
    return zeros


def refill(
    policy: Policy,
    params: Params,
    state: Decoding,
    seed: jax.Array,
    prompts: Prompts,
    rows: jax.Array,
    samples: jax.Array,
    fresh: jax.Array,
) -> Decoding:
    """The state with the `fresh` bool[P] of these prompts in place of those that were there. All P are read, wanted or
    not: a prompt's bits depend on the shape in which it is read."""
    new = start(policy, params, seed, prompts, rows, samples, state.own[0][0].shape[-2])
    chosen = lambda a, b: jnp.where(fresh.reshape(-1, *(1,) * (a.ndim - 1)), a, b)  # noqa: E731
    refilled: Decoding = jax.tree.map(chosen, new, state)
    return refilled
