"""Whether a model folder gives the numbers of another implementation: `ratchet model check`.

Decides what is computed for the arrays of an `expected.npz` and how far it may lie apart: logits of whole prompts, of
prompts of different lengths, and greedy tokens, which go through the caches exactly as sampling does.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.model.huggingface import Folder, nested
from ratchet_trainer.model.policy import Params, Policy, lay_out_prompts

EXPECTED = "expected.npz"
CHUNK = 5
"""Greedy tokens decoded at once; less than there are, so that caches are carried on."""


def check(path: Path) -> dict[str, float]:
    """Name of each known array in `expected.npz` -> largest absolute difference of what this project computes (for
    greedy ids: the share of tokens that differ). Raises ConfigurationInvalid."""
    folder = Folder(path)
    try:
        with np.load(path / EXPECTED) as file:
            expected = {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise ConfigurationInvalid(f"{path / EXPECTED}: {error}") from None
    policy = Policy(folder.architecture)
    params = nested(folder.load(lambda path: jax.sharding.SingleDeviceSharding(jax.devices()[0])))
    found: dict[str, float] = {}
    if "logits" in expected:
        logits = logits_of(policy, params, expected["input_ids"])
        found["logits"] = float(np.abs(logits - expected["logits"]).max())
    if "left_padded_ids" in expected:
        mask = expected["left_padded_mask"].astype(bool)
        rows = [tuple(row[real].tolist()) for row, real in zip(expected["left_padded_ids"], mask, strict=True)]
        if "left_padded_logits" in expected:
            width = max(map(len, rows))
            right = np.array([row + (0,) * (width - len(row)) for row in rows])
            logits = logits_of(policy, params, right)
            found["left_padded_logits"] = max(
                float(np.abs(logits[i, : len(row)] - expected["left_padded_logits"][i][mask[i]]).max())
                for i, row in enumerate(rows)
            )
        if "greedy_ids" in expected:
            tokens = greedy(policy, params, rows, expected["greedy_ids"].shape[1])
            found["greedy_ids"] = float((tokens != expected["greedy_ids"]).mean())
    if not found:
        raise ConfigurationInvalid(f"{path / EXPECTED}: holds none of logits, left_padded_logits, greedy_ids")
    return found


def logits_of(policy: Policy, params: Params, ids: np.ndarray) -> np.ndarray:
    """Logits float32[B, T, V] at every position of token ids [B, T]."""

    @jax.jit
    def run(params: Params, ids: jax.Array) -> jax.Array:
        model = policy.decoder(params)
        positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
        hidden, _ = model(ids[:, None], positions[:, None])
        return model.logits(hidden)[:, 0]

    return np.asarray(run(params, jnp.asarray(ids, jnp.int32)))


def greedy(policy: Policy, params: Params, prompts: list[tuple[int, ...]], count: int) -> np.ndarray:
    """The likeliest `count` tokens after each prompt, int32[B, count], one after the other through the caches."""
    laid_out = lay_out_prompts(prompts, len(prompts), max(map(len, prompts)))

    @partial(jax.jit, static_argnames="many")
    def decode(params: Params, prompt: Any, own: Any, token: jax.Array, at: jax.Array, many: int) -> Any:
        model = policy.decoder(params)

        def one(carry: Any, t: jax.Array) -> Any:
            own, token = carry
            positions = (laid_out.length + t)[:, None, None]
            hidden, own = model(token[:, None, None], positions, prompt, own, t)
            token = jnp.argmax(model.logits(hidden)[:, 0, 0], -1).astype(jnp.int32)
            return (own, token), token

        return jax.lax.scan(one, (own, token), at + jnp.arange(many))

    prompt = jax.jit(policy.read)(params, laid_out)
    own, token = policy.empty_cache(len(prompts), 1, count), jnp.asarray(laid_out.last)
    made = []
    for at in range(0, count, CHUNK):
        (own, token), tokens = decode(params, prompt, own, token, np.int32(at), many=min(CHUNK, count - at))
        made.append(np.asarray(tokens))
    return np.concatenate(made).T
