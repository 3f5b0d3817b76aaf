"""Low-rank adapters (LoRA, arXiv 2106.09685): a product x W becomes x W + scale (x A) B, and only A and B are trained.

Decides how they are computed, which part of a policy's parameters is trained, and what they are worth as plain weights.
The frozen rest is in no gradient, optimizer state or checkpoint: it is read from where the run began. B starts at zero,
so an untrained policy is its base bit for bit, and a reference that is the start is the base.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ratchet_trainer.model.tensor_names import parameters

if TYPE_CHECKING:
    from ratchet_trainer.model.huggingface import Folder

SUFFIX = "_adapter"
SIDE_BY_SIDE = {
    "attention/input": ("q_proj", "k_proj", "v_proj"),
    "attention/output": ("o_proj",),
    "mlp/input": ("gate_proj", "up_proj"),
    "mlp/output": ("down_proj",),
}
"""Our matrices -> what lies side by side in them, as the manifest names it."""


def split(params: Any) -> tuple[Any, Any]:
    """What is trained of a policy's parameters, and the frozen rest: the adapters and {rest}, or all and {}."""
    adapters, rest = _apart(params)
    return (adapters, rest) if adapters else (params, {})


def trained(params: Any) -> Any:
    """The part of a policy's parameters that is trained."""
    return split(params)[0]


def joined(part: Any, rest: Any) -> Any:
    """The parameters that `split` made two parts of."""
    if not isinstance(part, dict) or not isinstance(rest, dict):
        return part
    both = {key: joined(part[key], rest[key]) for key in part.keys() & rest.keys()}
    return {**part, **rest, **both}


def _apart(tree: Any) -> tuple[Any, Any]:
    if not isinstance(tree, dict):
        return {}, tree
    adapters, rest = {}, {}
    for key, value in tree.items():
        mine, others = (value, {}) if str(key).endswith(SUFFIX) else _apart(value)
        if not isinstance(mine, dict) or mine:
            adapters[key] = mine
        if not isinstance(others, dict) or others:
            rest[key] = others
    return adapters, rest


class Merged(Mapping[str, np.ndarray]):
    """Weights by path, float32, of a folder's model with adapters added: `arrays` holds them by path, as a checkpoint
    does. Made one at a time, when they are asked for."""

    def __init__(self, folder: Folder, arrays: Mapping[str, np.ndarray], scale: float):
        self._folder, self._arrays, self._scale = folder, arrays, scale
        self._parameters = parameters(folder.architecture)

    def __getitem__(self, path: str) -> np.ndarray:
        parameter, at = self._parameters[path], 0
        whole = self._folder.read(parameter)
        for name, shape in zip(SIDE_BY_SIDE.get("/".join(path.split("/")[2:]), ()), parameter.shapes, strict=False):
            pair = [self._arrays.get(f"{path}{SUFFIX}/{name}/{x}") for x in "ab"]
            if pair[0] is not None:
                whole[:, at : at + shape[0]] += self._scale * (np.asarray(pair[0]) @ np.asarray(pair[1]))
            at += shape[0]
        return whole

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)
