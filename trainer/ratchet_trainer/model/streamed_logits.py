"""Log-probabilities of tokens without an array of all logits: the vocabulary goes by in blocks, like keys in attention.

With a vocabulary of 150,000 the logits of an update are hundreds of times what goes through a block of the model; on a
TPU to write and read them takes longer than to compute them. Here a block of logits is used while it is there: the
forward pass keeps a running maximum and sums, the gradient computes each block again. Decides sizes and arithmetic;
that it is for TPUs, `policy` decides. The same numbers as `policy.log_prob_and_entropy` up to the order of sums.

Letters: M rows, D width, V vocabulary; B rows and W words of a block.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

WORDS = 2048
"""Words of a block."""
ROWS = 4096
"""Rows of a block: with WORDS, 32 MiB of logits, which stay in a TPU's VMEM."""

Pair = tuple[jax.Array, jax.Array]
Carry = tuple[jax.Array, ...]


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def log_prob_and_entropy(
    hidden: jax.Array,
    table: jax.Array,
    tokens: jax.Array,
    temperature: jax.Array,
    cap: float | None = None,
    sizes: tuple[int, int] = (ROWS, WORDS),
) -> Pair:
    """Of int32 `tokens` [M] under softmax(logits / temperature): log-probability and entropy in nats, float32[M].

    The logits are hidden [M, D] x table [V, D], transposed; capped by cap x tanh(logit / cap). Differentiated by
    `hidden` and `table`. `sizes`: rows and words of a block.
    """
    return _forward(hidden, table, tokens, temperature, cap, sizes)[0]


def _forward(
    hidden: jax.Array, table: jax.Array, tokens: jax.Array, temperature: jax.Array, cap: float | None,
    sizes: tuple[int, int],
) -> tuple[Pair, Carry]:  # fmt: skip
    def of_rows(rows: Pair) -> tuple[jax.Array, ...]:
        x, chosen = rows

        def one(carry: Carry, block: jax.Array) -> tuple[Carry, None]:
            most, total, weighted, found = carry
            scaled, words, fresh = _scaled(x, table, block, temperature, cap, sizes[1])[:3]
            seen = jnp.where(fresh, scaled, -jnp.inf)
            now = jnp.maximum(most, seen.max(-1))
            shrink, weight = jnp.exp(most - now), jnp.exp(seen - now[:, None])
            found = found + jnp.sum(jnp.where(fresh & (words == chosen[:, None]), scaled, 0.0), -1)
            return (now, total * shrink + weight.sum(-1), weighted * shrink + (weight * scaled).sum(-1), found), None

        zero = jnp.zeros(len(x), jnp.float32)
        start: Carry = (jnp.full(len(x), -jnp.inf), zero, zero, zero)
        (most, total, weighted, found), _ = jax.lax.scan(one, start, jnp.arange(_blocks(len(table), sizes[1])))
        log_total = most + jnp.log(total)
        return found - log_total, log_total - weighted / total, log_total

    log_prob, entropy, log_total = _in_blocks(of_rows, (hidden, tokens), sizes[0])
    return (log_prob, entropy), (hidden, table, tokens, temperature, log_total, entropy)


def _backward(
    cap: float | None, sizes: tuple[int, int], kept: Carry, d: Pair
) -> tuple[jax.Array, jax.Array, None, None]:
    hidden, table, tokens, temperature, log_total, entropy = kept
    count = _blocks(len(table), sizes[1])

    def of_rows(by_table: jax.Array, rows: Carry) -> tuple[jax.Array, jax.Array]:
        x, chosen, total, mean, by_chosen, by_entropy = rows

        def one(carry: Pair, block: jax.Array) -> tuple[Pair, None]:
            by_x, by_table = carry
            scaled, words, fresh, start, some = _scaled(x, table, block, temperature, cap, sizes[1])
            log_probs = scaled - total[:, None]
            by_all = jnp.exp(log_probs) * (by_chosen[:, None] + by_entropy[:, None] * (log_probs + mean[:, None]))
            by_scaled = jnp.where(words == chosen[:, None], by_chosen[:, None], 0.0) - by_all
            by_logits = jnp.where(fresh, by_scaled, 0.0) / temperature
            if cap is not None:
                by_logits = by_logits * (1.0 - jnp.square(scaled * temperature / cap))
            by_logits = by_logits.astype(x.dtype)
            by_x = by_x + jnp.matmul(by_logits, some, preferred_element_type=jnp.float32)
            by_some = jnp.matmul(by_logits.T, x, preferred_element_type=jnp.float32)
            before = jax.lax.dynamic_slice_in_dim(by_table, start, len(some))
            return (by_x, jax.lax.dynamic_update_slice_in_dim(by_table, before + by_some, start, 0)), None

        (by_x, by_table), _ = jax.lax.scan(one, (jnp.zeros(x.shape, jnp.float32), by_table), jnp.arange(count))
        return by_table, by_x.astype(x.dtype)

    rows = hidden, tokens, log_total, entropy, *d
    size, blocks = _row_blocks(len(hidden), sizes[0])
    nothing = jnp.zeros(table.shape, jnp.float32)
    if blocks == 1:
        by_table, by_hidden = of_rows(nothing, rows)
    else:
        by_table, by_hidden = jax.lax.scan(of_rows, nothing, tuple(_cut(x, size, blocks) for x in rows))
        by_hidden = by_hidden.reshape(-1, hidden.shape[-1])[: len(hidden)]
    return by_hidden, by_table.astype(table.dtype), None, None


log_prob_and_entropy.defvjp(_forward, _backward)


def _scaled(
    x: jax.Array, table: jax.Array, block: jax.Array, temperature: jax.Array, cap: float | None, words: int
) -> Carry:
    """Logits / temperature [B, W] of a block, its words' numbers, which of them no block before had, where it starts,
    and its part of the table. The last block reaches back, so that all are equally large."""
    words = min(words, len(table))
    start = jnp.minimum(block * words, len(table) - words)
    some = jax.lax.dynamic_slice_in_dim(table, start, words)
    logits = jnp.matmul(x, some.T, preferred_element_type=jnp.float32)
    if cap is not None:
        logits = cap * jnp.tanh(logits / cap)
    numbers = start + jnp.arange(words)
    return logits / temperature, numbers, numbers >= block * words, start, some


def _blocks(vocabulary: int, words: int) -> int:
    return -(-vocabulary // words)


def _row_blocks(rows: int, most: int) -> tuple[int, int]:
    """Size and number of equal blocks of at most so many rows."""
    blocks = -(-rows // most)
    return -(-rows // blocks), blocks


def _cut(x: jax.Array, size: int, blocks: int) -> jax.Array:
    """[M, ...] -> [blocks, size, ...], filled up with zeros."""
    x = jnp.pad(x, [(0, blocks * size - len(x)), *[(0, 0)] * (x.ndim - 1)])
    return x.reshape(blocks, size, *x.shape[1:])


def _in_blocks(function: object, rows: Pair, most: int) -> tuple[jax.Array, ...]:
    """function(rows) -> arrays with rows along their first axis, some rows at a time."""
    size, blocks = _row_blocks(len(rows[0]), most)
    if blocks == 1:
        return function(rows)  # type: ignore[operator,no-any-return]
    found = jax.lax.map(function, tuple(_cut(x, size, blocks) for x in rows))
    return tuple(x.reshape(-1)[: len(rows[0])] for x in found)
