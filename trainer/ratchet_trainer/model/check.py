"""Whether a model folder can be trained here, and gives the numbers of another implementation: `ratchet model check`.

Decides what is told of a folder, what is computed for the arrays of an `expected.npz` and how far it may lie apart:
logits of whole prompts, of prompts of different lengths, and greedy tokens, which go through the caches exactly as
sampling does.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ratchet_trainer.data.chat_template import PLAIN, NoChatTemplate
from ratchet_trainer.data.huggingface_tokenizer import HuggingFaceTokenizer
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.model import families
from ratchet_trainer.model.huggingface import Folder, nested
from ratchet_trainer.model.policy import Policy, lay_out_prompts
from ratchet_trainer.model.sharding import Params
from ratchet_trainer.model.tensor_names import parameters

EXPECTED = "expected.npz"
CHUNK = 8
"""Greedy tokens decoded at once; less than there are, so that caches are carried on."""


def look(path: Path) -> dict[str, str]:
    """What a folder holds, in words, after every tensor's name and shape and the tokenizer were looked at. Raises
    ConfigurationInvalid, FileNotFoundError."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    folder = Folder(path)
    folder.check()
    a, made = folder.architecture, parameters(folder.architecture)
    kinds = sorted({folder.dtype(folder.full_name(name)) for p in made.values() for name in p.tensors})
    count = sum(math.prod(p.shape) for p in made.values())
    return {
        "model": f"{families.text_config(folder.config)['model_type']}, {len(a.layers)} layers, "
        f"{count / 1e6:.4g} million parameters, {', '.join(kinds)}, vocabulary {a.vocabulary}",
        **_tokenizer(path, a.vocabulary),
    }


def _tokenizer(path: Path, vocabulary: int) -> dict[str, str]:
    if not (path / "tokenizer.json").exists():
        return {"tokenizer": "none: a run needs tokenizer.json"}
    try:
        tokenizer = HuggingFaceTokenizer(path, vocabulary)
        template = f"a prompt of one word has {len(tokenizer.encode_prompt('one'))} tokens"
    except NoChatTemplate:
        tokenizer = HuggingFaceTokenizer(path, vocabulary, PLAIN)
        template = "none: a run needs spec.model.chatTemplate"
    ends = ", ".join(f"{token} {tokenizer.decode_one(token)!r}" for token in tokenizer.ends)
    lacking = len(tokenizer.unwritable)
    more = f"; {lacking} of the model's tokens are none of them" if lacking else ""
    return {"tokenizer": f"{tokenizer.size} tokens{more}; responses end with {ends}", "chat template": template}


def check(path: Path) -> dict[str, float]:
    """Name of each known array in `expected.npz` -> largest absolute difference of what this project computes (for
    greedy ids: the share of tokens that differ); {} where there is no such file. Raises ConfigurationInvalid, also for
    weights that give no numbers at all, and FileNotFoundError."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    there = (path / EXPECTED).exists()
    expected = _read(path / EXPECTED) if there else {}
    folder = Folder(path)
    policy = Policy(folder.architecture)
    _fit(expected, folder.architecture.vocabulary, path / EXPECTED)
    params = nested(folder.load(lambda *_: jax.sharding.SingleDeviceSharding(jax.devices()[0])))
    found: dict[str, float] = {}
    if not there:
        some = np.arange(min(folder.architecture.vocabulary, 16))[None]
        if not np.isfinite(logits_of(policy, params, some)).all():
            raise ConfigurationInvalid(f"{path}: the weights are no model: logits are not finite")
        return found
    if "logits" in expected:
        found["logits"] = _gap(logits_of(policy, params, expected["input_ids"]), expected["logits"])
    if "left_padded_mask" not in expected:
        return found
    mask = expected["left_padded_mask"].astype(bool)
    rows = [tuple(row[real].tolist()) for row, real in zip(expected["left_padded_ids"], mask, strict=True)]
    if "left_padded_logits" in expected:
        # Positions count real tokens and padding is never seen, so it may stand on the other side.
        width = max(map(len, rows))
        logits = logits_of(policy, params, np.array([row + (0,) * (width - len(row)) for row in rows]))
        wanted = expected["left_padded_logits"]
        gaps = [_gap(logits[i, : len(row)], wanted[i][mask[i]]) for i, row in enumerate(rows)]
        found["left_padded_logits"] = float(np.max(gaps))
    if "greedy_ids" in expected:
        tokens = greedy(policy, params, rows, expected["greedy_ids"].shape[1])
        found["greedy_ids"] = float((tokens != expected["greedy_ids"]).mean())
    return found


def _gap(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(np.float64) - other).max())


NEEDED = {
    "logits": ("input_ids",),
    "left_padded_logits": ("left_padded_ids", "left_padded_mask"),
    "greedy_ids": ("left_padded_ids", "left_padded_mask"),
}
"""What is compared -> what it is made of."""


def _read(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a file, all that are compared with what they are made of."""
    try:
        with np.load(file) as opened:
            found = {name: opened[name] for name in opened.files}
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file}: {error.strerror}") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ConfigurationInvalid(f"{file}: no archive of arrays: {error}") from None
    if not NEEDED.keys() & found.keys():
        raise ConfigurationInvalid(f"{file}: holds none of {', '.join(NEEDED)}")
    missing = sorted({n for name in NEEDED.keys() & found.keys() for n in NEEDED[name]} - found.keys())
    if missing:
        raise ConfigurationInvalid(f"{file}: {', '.join(missing)} missing, which the others are made of")
    return found


def _fit(arrays: Mapping[str, np.ndarray], vocabulary: int, file: Path) -> None:
    """Raises ConfigurationInvalid for shapes and tokens that do not belong together, naming the array."""
    for name in ("input_ids", "left_padded_ids", "left_padded_mask", "greedy_ids"):
        array = arrays.get(name)
        if array is not None and (array.ndim != 2 or array.dtype.kind not in "iub"):
            raise ConfigurationInvalid(f"{file}: {name} is {array.dtype} {array.shape}, not whole numbers [B, T]")
        if array is not None and name.endswith("ids") and not (0 <= array.min(initial=0) <= array.max() < vocabulary):
            raise ConfigurationInvalid(f"{file}: {name} holds tokens outside of the vocabulary of {vocabulary}")
    for logits, ids in (("logits", "input_ids"), ("left_padded_logits", "left_padded_ids")):
        if logits in arrays and arrays[logits].shape != (*arrays[ids].shape, vocabulary):
            wanted = [*arrays[ids].shape, vocabulary]
            raise ConfigurationInvalid(f"{file}: {logits} is {list(arrays[logits].shape)}, not {wanted}")
    if "left_padded_ids" in arrays:
        mask = arrays["left_padded_mask"]
        if mask.shape != arrays["left_padded_ids"].shape or not mask.any(-1).all():
            raise ConfigurationInvalid(f"{file}: left_padded_mask must mark a token in each row of left_padded_ids")
        if "greedy_ids" in arrays and len(arrays["greedy_ids"]) != len(mask):
            raise ConfigurationInvalid(f"{file}: greedy_ids has {len(arrays['greedy_ids'])} rows for {len(mask)}")


def logits_of(policy: Policy, params: Params, ids: np.ndarray) -> np.ndarray:
    """Logits float32[B, T, V] at every position of token ids [B, T]."""
    return np.asarray(_logits(policy, params, jnp.asarray(ids, jnp.int32)))


@partial(jax.jit, static_argnums=0)
def _logits(policy: Policy, params: Params, ids: jax.Array) -> jax.Array:
    model = policy.decoder(params)
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    hidden, _ = model(ids[:, None], model.turns(positions[:, None]))
    return model.logits(hidden)[:, 0]


def greedy(policy: Policy, params: Params, prompts: list[tuple[int, ...]], count: int) -> np.ndarray:
    """The likeliest `count` tokens after each prompt, int32[B, count], one after the other through the caches."""
    laid_out = lay_out_prompts(prompts, len(prompts), max(map(len, prompts)))

    @partial(jax.jit, static_argnames="many")
    def decode(params: Params, prompt: Any, own: Any, token: jax.Array, at: jax.Array, many: int) -> Any:
        model = policy.decoder(params)

        def one(carry: Any, t: jax.Array) -> Any:
            own, token = carry
            positions = (laid_out.length + t)[:, None, None]
            hidden, own = model(token[:, None, None], model.turns(positions), prompt, own, t)
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
