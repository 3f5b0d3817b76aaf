"""What lies between the matrix products on a TPU: as in `plain`, but attention of many tokens is JAX's splash kernel.

The plain path makes an array of all scores, [P G, N, T, C + T]; the kernel keeps a block of them at a time, forwards
and for the gradient, so that the memory of long responses grows with their length and not with its square. Decides when
the kernel is used and how its inputs are laid out. What it computes is what `plain` does (tests hold them equal in
interpret mode).

Letters as in `plain`.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from ratchet_trainer.model import plain
from ratchet_trainer.model.plain import GATES, Pair, Turn, gated, recomputed, rms_norm, rotate, split, turn
from ratchet_trainer.model.sharding import ROWS, row_parts
from ratchet_trainer.model.visibility import Sight

__all__ = ["GATES", "Turn", "attend", "gated", "recomputed", "rms_norm", "rotate", "split", "turn"]

BLOCK = 128
"""Sequences are filled up to a multiple of it."""
BLOCKS = (512, 384, 256, 128)
"""Tokens or slots of a block of the kernel: the first that divides a sequence. Keys and values are read once for each
block of tokens, so larger ones move less."""
FEWEST = 128
"""New tokens for which the kernel is worth its fixed cost."""


def attend(
    query: jax.Array,
    own: Pair,
    prompt: Pair | None,
    sight: Sight,
    cap: float | None,
    mesh: Mesh | None = None,
    interpret: bool = False,
) -> jax.Array:
    """`plain.attend`. A token that is decoded, few tokens, a window and slots that hold earlier tokens take the plain
    path. On a spread model every device attends with its own rows and heads: XLA cannot cut a kernel."""
    if not _suits(query, sight, mesh):
        return plain.attend(query, own, prompt, sight, cap, mesh)
    length = jnp.zeros(len(query), jnp.int32) if prompt is None else sight.length
    assert length is not None, "a prompt has one"
    local = partial(_splash, cap, interpret)
    if mesh is None:
        return local(query, own, prompt, length)
    heads = "tensor" if own[0].shape[1] % mesh.shape["tensor"] == 0 else None
    of_query = PartitionSpec(ROWS, None, None, heads)
    of_keys = PartitionSpec(ROWS, heads)
    specs = (of_query, (of_keys, of_keys), None if prompt is None else (of_keys, of_keys), PartitionSpec(ROWS))
    spread = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=of_query, check_vma=False)
    return spread(query, own, prompt, length)


def _suits(query: jax.Array, sight: Sight, mesh: Mesh | None) -> bool:
    """Whether the kernel can be used: all tokens are new, and what they see does not depend on a window."""
    whole = isinstance(sight.first, int) and sight.first == 0 and sight.slots == sight.tokens
    even = mesh is None or len(query) % row_parts(mesh) == 0
    return whole and even and sight.window is None and query.shape[2] >= FEWEST


def _splash(
    cap: float | None, interpret: bool, query: jax.Array, own: Pair, prompt: Pair | None, length: jax.Array
) -> jax.Array:
    """On one device; the first `length` [P] slots of a prompt are real."""
    p, g, t, n, k = query.shape
    before = 0 if prompt is None else prompt[0].shape[2]

    def side_by_side(part: int) -> jax.Array:
        """[P G, M, C + T, K], filled up."""
        m = own[part].shape[1]
        rows = own[part].transpose(0, 2, 1, 3, 4)
        if prompt is not None:
            past = jnp.broadcast_to(prompt[part][:, None], (p, g, m, before, k))
            rows = jnp.concatenate([past, rows], 3)
        return _filled(rows.reshape(p * g, m, before + t, k), 2)

    keys, values = side_by_side(0), side_by_side(1)
    queries = _filled(query.transpose(0, 1, 3, 2, 4).reshape(p * g, n, t, k), 2)
    # Slots before a token are one segment with it if they are real, and another one if not.
    slot = jnp.arange(keys.shape[2])
    real = jnp.repeat((slot < length[:, None]) | (slot >= before), g, 0).astype(jnp.int32)
    segments = splash_attention().SegmentIds(q=jnp.ones((p * g, queries.shape[2]), jnp.int32), kv=real)
    kernel = _kernel(n, queries.shape[2], keys.shape[2], before, cap, interpret)
    found = jax.vmap(kernel)(queries, keys, values, segments)[:, :, :t]
    rows: jax.Array = found.reshape(p, g, n, t, k).transpose(0, 1, 3, 2, 4).astype(query.dtype)
    return rows


def _filled(x: jax.Array, axis: int) -> jax.Array:
    """With zeros up to whole blocks."""
    missing = -x.shape[axis] % BLOCK
    return jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])


def splash_attention() -> Any:
    """JAX's package of that name. Imported when something is traced, as it takes long."""
    from jax.experimental.pallas.ops.tpu import splash_attention

    return splash_attention


@lru_cache(16)
def _kernel(heads: int, tokens: int, slots: int, before: int, cap: float | None, interpret: bool) -> Any:
    """The kernel of a shape: token t sees slots 0 .. before + t."""
    splash = splash_attention()
    mask = splash.MultiHeadMask([splash.CausalMask((tokens, slots), offset=before)] * heads)
    q, kv = (next(block for block in BLOCKS if size % block == 0) for size in (tokens, slots))
    sizes = splash.BlockSizes(
        block_q=q,
        block_kv=kv,
        block_kv_compute=kv,
        block_q_dkv=q,
        block_kv_dkv=kv,
        block_kv_dkv_compute=kv,
        use_fused_bwd_kernel=True,
    )
    with jax.ensure_compile_time_eval():
        make = splash.make_splash_mha_single_device
        return make(mask, block_sizes=sizes, attn_logits_soft_cap=cap, interpret=interpret)
