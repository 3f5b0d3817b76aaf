"""Folders in Hugging Face layout: `config.json` and safetensors, read into parameters.

Decides where a folder's tensors lie and what is refused: everything that is missing, left over or of another shape is
named at once. Files are memory-mapped, and each device's part of a parameter is read by itself, so that a host never
holds a second copy of the model, nor parts that are not its own. What a config means is in `families`, which tensors
make which parameter in `tensor_names`; folders are written by `export`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ratchet_trainer.data.lfs import refuse_pointers
from ratchet_trainer.errors import ConfigurationInvalid, NonFinite
from ratchet_trainer.model import families
from ratchet_trainer.model.tensor_names import Parameter, parameters

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
HEADER_BYTES = 100 << 20
"""No header is larger, says the format."""
PREFIXES = ("language_model.model.", "model.language_model.", "language_model.", "model.", "")
"""What stands before `layers.0...` in the wild; the first that fits counts."""
IGNORED = ("vision_tower.", "model.vision_tower.", "multi_modal_projector.", "model.multi_modal_projector.")
"""Tensors of the other half of a multimodal model."""
HEADS = ("lm_head.weight", "language_model.lm_head.weight")
TYPES = ("F32", "BF16", "F16", "F64")
COMPARED = 4096
"""Rows of two tensors that are compared at once."""

log = logging.getLogger(__name__)


class Folder:
    """A model folder that is read. Raises ConfigurationInvalid where it cannot be used, naming file and reason."""

    def __init__(self, path: Path):
        self.path = Path(path)
        refuse_pointers(self.path)
        self.config = self.json("config.json")
        self.architecture = families.architecture(self.config)
        if self.architecture.tied and self._has_own_head():
            log.warning(
                "%s: tie_word_embeddings is true, but %s is there and is not the embedding: it is the head here",
                self.path,
                self.full_name("lm_head.weight"),
            )
            self.architecture = replace(self.architecture, tied=False)

    def json(self, name: str) -> dict[str, Any]:
        """The content of one of its JSON files."""
        return families.json_object(self.path / name)

    @cached_property
    def digest(self) -> str:
        """Identity of the weights at a run's start: config, and each file's name, size and header, which names every
        tensor with its shape and place. Reading all bytes would take as long as loading; from the first commit on,
        checkpoints have digests of every byte."""
        found = hashlib.sha256((self.path / "config.json").read_bytes())
        for file in sorted(set(self.files.values())):
            try:
                with open(self.path / file, "rb") as opened:
                    size = int.from_bytes(opened.read(8), "little")
                    header = opened.read(min(size, HEADER_BYTES))
                    length = opened.seek(0, 2)
            except OSError as error:
                raise ConfigurationInvalid(f"{self.path / file}: {error.strerror}") from None
            found.update(f"{file} {length} ".encode() + header)
        return found.hexdigest()

    @cached_property
    def digest_of_bytes(self) -> str:
        """Identity of every byte of config and weights."""
        found = hashlib.sha256((self.path / "config.json").read_bytes())
        for file in sorted(set(self.files.values())):
            with open(self.path / file, "rb") as opened:
                found.update(file.encode() + hashlib.file_digest(opened, "sha256").digest())
        return found.hexdigest()

    @cached_property
    def files(self) -> dict[str, str]:
        """Tensor -> file."""
        if not (self.path / SINGLE).exists() and (self.path / INDEX).exists():
            names = self.json(INDEX).get("weight_map")
            if not isinstance(names, dict) or not all(isinstance(file, str) for file in names.values()):
                raise ConfigurationInvalid(f"{self.path / INDEX}: weight_map, tensor -> file, is missing")
            absent = sorted({file for file in names.values() if not (self.path / file).exists()})
            if absent:
                raise ConfigurationInvalid(f"{self.path}: {INDEX} names files that are not there: {', '.join(absent)}")
            return names
        if not (self.path / SINGLE).exists():
            raise ConfigurationInvalid(f"{self.path}: neither {SINGLE} nor {INDEX} is there; no other files are read")
        return dict.fromkeys(sorted(self._open(SINGLE)[1]), SINGLE)

    def _open(self, file: str) -> tuple[Any, frozenset[str]]:
        """A file, memory-mapped, and the names of its tensors."""
        from safetensors import SafetensorError, safe_open

        if file not in self._opened:
            try:
                opened = safe_open(self.path / file, "numpy")
                self._opened[file] = opened, frozenset(opened.keys())
            except (SafetensorError, OSError) as error:
                raise ConfigurationInvalid(f"{self.path / file}: {error}") from None
        return self._opened[file]

    @cached_property
    def _opened(self) -> dict[str, tuple[Any, frozenset[str]]]:
        return {}

    @cached_property
    def _prefix(self) -> str:
        return next((p for p in PREFIXES if f"{p}embed_tokens.weight" in self.files), "model.")

    def full_name(self, tensor: str) -> str:
        """The name of a tensor in this folder."""
        if tensor != "lm_head.weight":
            return self._prefix + tensor
        return next((name for name in HEADS if name in self.files), tensor)

    def _has_own_head(self) -> bool:
        """Whether a folder that says to have none has a head other than its embedding, byte for byte: `transformers`
        5 goes by the tensors then, and so does this project."""
        head, embedding = self.full_name("lm_head.weight"), self.full_name("embed_tokens.weight")
        if not {head, embedding} <= self.files.keys():
            return False
        one, other = self._piece(head), self._piece(embedding)
        if one is None or other is None or one.get_shape() != other.get_shape() or one.get_dtype() != other.get_dtype():
            return one is not None
        rows = one.get_shape()[0]
        parts = (slice(at, min(at + COMPARED, rows)) for at in range(0, rows, COMPARED))
        return any(np.asarray(one[part]).tobytes() != np.asarray(other[part]).tobytes() for part in parts)

    def check(self) -> None:
        """Raises ConfigurationInvalid that names every tensor which is missing, left over or of another shape."""
        wanted = {
            self.full_name(name): shape
            for p in parameters(self.architecture).values()
            for name, shape in zip(p.tensors, p.shapes, strict=True)
        }
        kept = {name: self._piece(name) for name in wanted if name in self.files}
        lacking = [f"{name} (of {self.files[name]})" for name, piece in kept.items() if piece is None]
        wrong = [
            f"{name} is {piece.get_dtype()} {piece.get_shape()}, not {list(wanted[name])} of {', '.join(TYPES)}"
            for name, piece in kept.items()
            if piece is not None and (tuple(piece.get_shape()) != wanted[name] or piece.get_dtype() not in TYPES)
        ]
        self._refuse(
            {
                "missing": [name for name in wanted if name not in self.files],
                f"promised by {INDEX} but not there": lacking,
                "left over": [name for name in self.rest() if not self._passed_over(name)],
                "of another shape or type than config.json says": wrong,
            }
        )

    def _refuse(self, problems: Mapping[str, Iterable[str]]) -> None:
        said = [f"{what}: {', '.join(sorted(names))}" for what, names in problems.items() if names]
        if said:
            raise ConfigurationInvalid(f"{self.path}: tensors do not fit the architecture; " + "; ".join(said))

    def rest(self) -> list[str]:
        """Tensors that make no parameter: the other half of a multimodal model, or a head that is the embedding."""
        ours = {self.full_name(name) for p in parameters(self.architecture).values() for name in p.tensors}
        return [name for name in self.files if name not in ours]

    def _passed_over(self, name: str) -> bool:
        tied = self.architecture.tied and name in HEADS
        return tied or name.startswith(IGNORED) or "rotary_emb." in name

    def _piece(self, tensor: str) -> Any:
        """A tensor of the folder, by its full name, that is not read yet; None if its file does not have it."""
        opened, names = self._open(self.files[tensor])
        return opened.get_slice(tensor) if tensor in names else None

    def dtype(self, tensor: str) -> str:
        """The type of a tensor, by its full name, as safetensors calls it."""
        return str(self._piece(tensor).get_dtype())

    def tensor(self, name: str) -> np.ndarray:
        """A tensor, by its full name, as it is."""
        return np.asarray(self._piece(name)[:])

    def read(self, parameter: Parameter, part: tuple[slice, ...] | None = None) -> np.ndarray:
        """A parameter, or a part of it, as float32 in our layout. Only what is asked for is read."""
        part = part or (slice(None),) * len(parameter.shape)
        along, *others = part[::-1] if parameter.matrix else part  # axis 0 there is where tensors lie side by side
        first, last, _ = along.indices(sum(shape[0] for shape in parameter.shapes))
        pieces, start = [], 0
        for name, shape in zip(map(self.full_name, parameter.tensors), parameter.shapes, strict=True):
            mine = slice(max(first - start, 0), min(last - start, shape[0]))
            if mine.start < mine.stop:
                pieces.append(self._finite(name, np.asarray(self._piece(name)[(mine, *others)]).astype(np.float32)))
            start += shape[0]
        whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return np.ascontiguousarray(whole.T) if parameter.matrix else whole

    def _finite(self, name: str, values: np.ndarray) -> np.ndarray:
        """The values, once it is known that all are numbers. Raises NonFinite."""
        with np.errstate(all="ignore"):
            quick = values.sum()  # NaN and infinities survive a sum, which needs no memory
        if not np.isfinite(quick) and (wrong := int((~np.isfinite(values)).sum())):
            raise NonFinite(
                f"{self.path / self.files[name]}: {wrong} of the {values.size} values of {name} that were read are NaN "
                "or infinite, so nothing can be sampled; use weights of an earlier checkpoint, or fetch the file again"
            )
        return values

    @property
    def positions(self) -> int | None:
        """How many tokens a prompt and its response may have together, the scaling of positions included; None if the
        config does not say."""
        config = families.text_config(self.config)
        scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
        said, original = config.get("max_position_embeddings"), scaling.get("original_max_position_embeddings")
        if type(said) is not int:
            return None
        return max(said, int(float(scaling.get("factor") or 1) * (original if type(original) is int else said)))

    def room_for_prompts(self, prompt_tokens: int, response_tokens: int) -> int:
        """Most tokens that a prompt may have: as many as asked for, or what responses leave of the model's positions.
        Raises ConfigurationInvalid if they leave none."""
        if self.positions is None or prompt_tokens + response_tokens <= self.positions:
            return prompt_tokens
        left = self.positions - response_tokens
        if left < 1:
            raise ConfigurationInvalid(
                f"{self.path / 'config.json'}: the model has {self.positions} positions (max_position_embeddings), "
                f"which responses of {response_tokens} tokens fill alone; lower maxResponseTokens"
            )
        log.warning(
            "%s: the model has %d positions (max_position_embeddings), fewer than prompts of %d and responses of %d "
            "tokens need: prompts of more than %d are too long here",
            self.path / "config.json", self.positions, prompt_tokens, response_tokens, left,
        )  # fmt: skip
        return left

    def load(self, shardings: Callable[[str, tuple[int, ...]], jax.sharding.Sharding]) -> dict[str, jax.Array]:
        """Every parameter by path, where `shardings` says for path and shape. Raises ConfigurationInvalid,
        NonFinite."""
        self.check()

        def one(path: str, parameter: Parameter) -> jax.Array:
            where = shardings(path, parameter.shape)
            return jax.make_array_from_callback(parameter.shape, where, lambda part: self.read(parameter, part))

        return {path: one(path, parameter) for path, parameter in parameters(self.architecture).items()}


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves by path -> the nested dict that a policy's parameters are; numbers stand for entries of a list."""
    tree: dict[Any, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for part in parents:
            node = node.setdefault(int(part) if part.isdigit() else part, {})
        node[last] = leaf
    return tree
