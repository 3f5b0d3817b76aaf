"""Sampling at fixed shapes: one prefill for each prompt, then chunks of decoding until all responses have ended.

Decides which token comes next, from weights, key and token number alone: neither the neighbours in a batch nor the
process that holds a row matter. Rows are spread over the mesh axis `data`; what comes back is equal on every process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ratchet_trainer import keys
from ratchet_trainer.data.tokenizer import FILLER
from ratchet_trainer.model import kv_cache
from ratchet_trainer.model.policy import Params, Policy, Prompts, lay_out_prompts, log_prob_and_entropy
from ratchet_trainer.model.sharding import by_rows, place, replicated, shapes

NOISE_AHEAD = 16 << 20
"""Noise of a whole chunk is drawn at once if it is not more numbers than this: one large computation instead of many
small ones, with the same bits."""
CHUNK = 16
"""Tokens decoded between two safe points."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Decoding:
    """Responses in the making: caches, raw row keys uint32[P, G, 2], the newest token and whether it ended, [P, G]."""

    prompt: kv_cache.Prompt
    own: tuple[kv_cache.Pair, ...]
    keys: jax.Array
    token: jax.Array
    done: jax.Array


@dataclass(frozen=True)
class Sampled:
    """Host arrays [P, G, T]: tokens (FILLER after an end), their log-probabilities, the policy's entropy
    there (nats)."""

    tokens: np.ndarray
    log_probs: np.ndarray
    entropy: np.ndarray


class Sampler:
    """The compiled programs of one policy on one mesh; new shapes compile on first use."""

    def __init__(self, policy: Policy, mesh: Mesh, ends: tuple[int, ...]):
        """`ends`: tokens after which a response is over."""
        self.mesh, self.ends = mesh, ends
        rows, everywhere = by_rows(mesh), replicated(mesh)
        self._start = jax.jit(partial(_start, policy), static_argnames="slots", out_shardings=rows)
        self._decode = jax.jit(
            partial(_decode, policy, ends),
            static_argnames="count",
            donate_argnums=1,
            out_shardings=(rows, everywhere),
        )

    def prepare(self, params: Params, prompts: int, prompt_slots: int, samples: int, slots: int) -> None:
        """Compiles for these sizes ahead of the first call; `params` may be shapes."""
        rows = by_rows(self.mesh)
        laid_out = shapes(lay_out_prompts([], prompts, prompt_slots), rows)
        row_words = jax.ShapeDtypeStruct((prompts, 5), np.uint32, sharding=rows)
        start = self._start.lower(
            params, keys.seed_words(0), laid_out, row_words, np.arange(samples, dtype=np.uint32), slots=slots
        )
        start.compile()
        state = shapes(start.out_info, rows)
        for count in {min(CHUNK, slots), slots % CHUNK or min(CHUNK, slots)}:
            self._decode.lower(params, state, np.int32(0), np.float32(1), count=count).compile()

    def sample(
        self,
        params: Params,
        seed: np.ndarray,
        prompts: Prompts,
        row_words: np.ndarray,
        samples: np.ndarray,
        slots: int,
        temperature: float,
        safe_point: Callable[[], None],
    ) -> Sampled:
        """`len(samples)` responses of at most `slots` tokens to each prompt.

        prompts: host arrays, P a multiple of the data axis; row_words uint32[P, 5] and samples uint32[G] name the keys.
        `safe_point` is called after each chunk and may raise.
        """
        rows = by_rows(self.mesh)
        state = self._start(
            params, seed, place(prompts, rows), place(row_words, rows), samples.astype(np.uint32), slots=slots
        )
        chunks, ended = [], np.zeros((len(row_words), len(samples)), bool)
        for at in range(0, slots, CHUNK):
            count = min(CHUNK, slots - at)
            state, chunk = self._decode(params, state, np.int32(at), np.float32(temperature), count=count)
            chunks.append(np.asarray(chunk))
            ended |= np.isin(chunks[-1][0], self.ends).any(-1)
            safe_point()
            if ended.all():
                break
        tokens, log_probs, entropy = np.concatenate(chunks, -1)
        tokens = tokens.astype(np.int32)
        missing = [(0, 0), (0, 0), (0, slots - tokens.shape[-1])]
        return Sampled(
            np.pad(tokens, missing, constant_values=FILLER), np.pad(log_probs, missing), np.pad(entropy, missing)
        )


def _start(
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


def _decode(
    policy: Policy,
    ends: tuple[int, ...],
    params: Params,
    state: Decoding,
    at: jax.Array,
    temperature: jax.Array,
    count: int,
) -> tuple[Decoding, jax.Array]:
    """`count` more tokens from response position `at`; tokens, log-probs and entropy as float32[3, P, G, count].

    One array, because every process gets it whole and each collective costs a wait (token numbers are exact below
    2^24).
    """
    model = policy.decoder(params)
    vocabulary = policy.architecture.vocabulary
    tokens = at + jnp.arange(count)
    noise = lambda t: keys.gumbel(state.keys, t, vocabulary)  # noqa: E731
    ahead = count * state.token.size * vocabulary <= NOISE_AHEAD
    noises = jax.vmap(noise)(tokens) if ahead else None

    def one(carry, now):
        own, token, done = carry
        t, drawn = now
        positions = jnp.broadcast_to(state.prompt.length[:, None] + t, token.shape)
        hidden, own = model(token[..., None], positions[..., None], state.prompt, own, t)
        logits = model.logits(hidden[..., 0, :])
        drawn = noise(t) if drawn is None else drawn
        chosen = jnp.argmax(logits / temperature + drawn, -1).astype(jnp.int32)
        log_prob, entropy = log_prob_and_entropy(logits, chosen, temperature)
        out = jnp.where(done, FILLER, chosen), jnp.where(done, 0.0, log_prob), jnp.where(done, 0.0, entropy)
        return (own, out[0], done | jnp.isin(out[0], np.array(ends))), out

    (own, token, done), outs = jax.lax.scan(one, (state.own, state.token, state.done), (tokens, noises))
    made = jnp.stack([jnp.moveaxis(x.astype(jnp.float32), 0, -1) for x in outs])
    return Decoding(state.prompt, own, state.keys, token, done), made
