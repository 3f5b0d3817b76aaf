"""Folders in Hugging Face layout: `config.json` and safetensors, read into parameters and written back.

Decides which tensors make which parameter, and what is refused: everything that is missing, left over or of another
shape is named at once. Parameters are made one at a time from memory-mapped files and go straight to their devices, so
a host never holds a second copy of the model. What a config means is in `families`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.model import families
from ratchet_trainer.model.architecture import Architecture

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
SHARD_BYTES = 4 << 30
"""Largest file that is written, unless a single tensor is larger."""
PREFIXES = ("language_model.model.", "model.language_model.", "language_model.", "model.", "")
"""What stands before `layers.0...` in the wild; the first that fits counts."""
IGNORED = ("vision_tower.", "model.vision_tower.", "multi_modal_projector.", "model.multi_modal_projector.")
"""Tensors of the other half of a multimodal model."""
TYPES = {"F32": np.float32, "F16": np.float16, "BF16": None, "F64": np.float64}
COPIED = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)


@dataclass(frozen=True)
class Parameter:
    """One of our parameters: the tensors that make it, side by side, and their shapes there."""

    tensors: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def matrix(self) -> bool:
        """Matrices are [out, in] there and [in, out] here; the embedding, which is looked up by row, is not turned."""
        return len(self.shapes[0]) == 2 and self.tensors[0] != "embed_tokens.weight"


def parameters(a: Architecture) -> dict[str, Parameter]:
    """Path of each parameter -> the tensors it is made of (names without the prefix)."""
    found = {
        "embedding": Parameter(("embed_tokens.weight",), ((a.vocabulary, a.width),)),
        "norm/scale": Parameter(("norm.weight",), ((a.width,),)),
    }
    if not a.tied:
        found["head"] = Parameter(("lm_head.weight",), ((a.vocabulary, a.width),))
    mlp_norm, post = "post_attention_layernorm", {}
    if a.post_norms:
        mlp_norm = "pre_feedforward_layernorm"
        post = {"attention_post_norm": "post_attention_layernorm", "mlp_post_norm": "post_feedforward_layernorm"}
    for i in range(len(a.layers)):
        for path, parameter in _layer(a, mlp_norm, post):
            named = tuple(f"layers.{i}.{name}" for name in parameter.tensors)
            found[f"blocks/{i}/{path}"] = Parameter(named, parameter.shapes)
    return found


def _layer(a: Architecture, mlp_norm: str, post: Mapping[str, str]) -> Iterator[tuple[str, Parameter]]:
    def norm(name: str, width: int) -> Parameter:
        return Parameter((f"{name}.weight",), ((width,),))

    heads = tuple(f"self_attn.{x}_proj" for x in "qkv")
    halves = ("mlp.gate_proj", "mlp.up_proj")
    yield "attention/input", Parameter(_all(heads, "weight"), tuple((w, a.width) for w in a.projections))
    yield "attention/output", Parameter(("self_attn.o_proj.weight",), ((a.width, a.projections[0]),))
    yield "mlp/input", Parameter(_all(halves, "weight"), ((a.hidden, a.width),) * 2)
    yield "mlp/output", Parameter(("mlp.down_proj.weight",), ((a.width, a.hidden),))
    yield "attention_norm/scale", norm("input_layernorm", a.width)
    yield "mlp_norm/scale", norm(mlp_norm, a.width)
    for path, name in post.items():
        yield f"{path}/scale", norm(name, a.width)
    if a.attention_bias[0]:
        yield "attention/input_bias", Parameter(_all(heads, "bias"), tuple((w,) for w in a.projections))
    if a.attention_bias[1]:
        yield "attention/output_bias", Parameter(("self_attn.o_proj.bias",), ((a.width,),))
    if a.mlp_bias:
        yield "mlp/input_bias", Parameter(_all(halves, "bias"), ((a.hidden,),) * 2)
        yield "mlp/output_bias", Parameter(("mlp.down_proj.bias",), ((a.width,),))
    if a.head_norms:
        yield "attention/query_norm/scale", norm("self_attn.q_norm", a.head_width)
        yield "attention/key_norm/scale", norm("self_attn.k_norm", a.head_width)


def _all(names: tuple[str, ...], kind: str) -> tuple[str, ...]:
    return tuple(f"{name}.{kind}" for name in names)


class Folder:
    """A model folder that is read. Raises ConfigurationInvalid where it cannot be used, naming file and reason."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.config = self.json("config.json")
        self.architecture = families.architecture(self.config)

    def json(self, name: str) -> dict[str, Any]:
        """The content of one of its JSON files."""
        try:
            content = json.loads((self.path / name).read_bytes())
        except OSError as error:
            raise ConfigurationInvalid(f"{self.path / name}: {error.strerror}") from None
        except ValueError as error:
            raise ConfigurationInvalid(f"{self.path / name}: not JSON: {error}") from None
        if not isinstance(content, dict):
            raise ConfigurationInvalid(f"{self.path / name}: not a JSON object")
        return content

    @cached_property
    def digest(self) -> str:
        """Identity of the weights at a run's start: config, and each file's name, size and header, which names every
        tensor. Reading all bytes would take as long as loading; once trained, checkpoints have digests of their own."""
        found = hashlib.sha256((self.path / "config.json").read_bytes())
        for file in sorted({self._files[name] for name in self._files}):
            with open(self.path / file, "rb") as opened:
                size = int.from_bytes(opened.read(8), "little")
                header = opened.read(min(size, 100 << 20))
            found.update(f"{file} {(self.path / file).stat().st_size} ".encode() + header)
        return found.hexdigest()

    @cached_property
    def _files(self) -> dict[str, str]:
        """Tensor -> file."""
        if (self.path / INDEX).exists():
            names = self.json(INDEX).get("weight_map", {})
            absent = sorted({file for file in names.values() if not (self.path / file).exists()})
            if absent:
                raise ConfigurationInvalid(f"{self.path}: {INDEX} names files that are not there: {', '.join(absent)}")
            return names
        if not (self.path / SINGLE).exists():
            raise ConfigurationInvalid(f"{self.path}: neither {SINGLE} nor {INDEX} is there")
        return dict.fromkeys(self._open(SINGLE).keys(), SINGLE)

    def _open(self, file: str) -> Any:
        from safetensors import SafetensorError, safe_open

        if file not in self._opened:
            try:
                self._opened[file] = safe_open(self.path / file, "numpy")
            except (SafetensorError, OSError) as error:
                raise ConfigurationInvalid(f"{self.path / file}: {error}") from None
        return self._opened[file]

    @cached_property
    def _opened(self) -> dict[str, Any]:
        return {}

    @cached_property
    def _prefix(self) -> str:
        return next((p for p in PREFIXES if f"{p}embed_tokens.weight" in self._files), "model.")

    def full_name(self, tensor: str) -> str:
        """The name of a tensor in this folder."""
        if tensor != "lm_head.weight":
            return self._prefix + tensor
        return next((n for n in ("lm_head.weight", "language_model.lm_head.weight") if n in self._files), tensor)

    def check(self) -> None:
        """Raises ConfigurationInvalid that names every tensor which is missing, left over or of another shape."""
        wanted = {
            self.full_name(name): shape
            for p in parameters(self.architecture).values()
            for name, shape in zip(p.tensors, p.shapes, strict=True)
        }
        spare = {"lm_head.weight", "language_model.lm_head.weight"} if self.architecture.tied else set()
        extra = [
            name
            for name in self._files
            if name not in wanted and name not in spare and not name.startswith(IGNORED) and "rotary_emb." not in name
        ]
        wrong = []
        for name, shape in wanted.items():
            if name in self._files:
                kept = self._open(self._files[name])
                if name not in kept.keys():  # noqa: SIM118 - not a mapping
                    raise ConfigurationInvalid(f"{self.path}: {self._files[name]} lacks {name}, which {INDEX} promises")
                piece = kept.get_slice(name)
                if tuple(piece.get_shape()) != shape:
                    wrong.append(f"{name} is {piece.get_shape()}, not {list(shape)}")
                elif piece.get_dtype() not in TYPES:
                    wrong.append(f"{name} is {piece.get_dtype()}; known are {', '.join(TYPES)}")
        said = [
            f"{what}: {', '.join(sorted(names))}"
            for what, names in (
                ("missing", [name for name in wanted if name not in self._files]),
                ("left over", extra),
                ("of another shape or type than config.json says", wrong),
            )
            if names
        ]
        if said:
            raise ConfigurationInvalid(f"{self.path}: tensors do not fit the architecture; " + "; ".join(said))

    def read(self, parameter: Parameter) -> np.ndarray:
        """A parameter as float32, in our layout."""
        parts = [
            self._open(self._files[name]).get_tensor(name).astype(np.float32)
            for name in map(self.full_name, parameter.tensors)
        ]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return np.ascontiguousarray(whole.T) if parameter.matrix else whole

    def load(self, shardings: Callable[[str], jax.sharding.Sharding]) -> dict[str, jax.Array]:
        """Every parameter by path, where `shardings` says."""
        self.check()
        found = {}
        for path, parameter in parameters(self.architecture).items():
            value = self.read(parameter)
            found[path] = jax.make_array_from_callback(value.shape, shardings(path), lambda i, value=value: value[i])
        return found


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


def export(source: Path, target: Path, arrays: Mapping[str, np.ndarray], dtype: str = "float32") -> None:
    """Writes parameters, by path, in the layout of the folder they came from: tensors under their names there, config,
    tokenizer and the rest copied. `dtype`: float32, bfloat16 or float16. Raises FileExistsError if `target` exists.

    The folder appears whole: it is written beside its place and renamed.
    """
    from safetensors.numpy import save_file

    if target.exists():
        raise FileExistsError(f"{target} exists; choose another folder or remove it")
    import ml_dtypes

    kind = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[dtype]
    folder = Folder(source)
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    files: list[dict[str, np.ndarray]] = [{}]
    for path, parameter in parameters(folder.architecture).items():
        for name, tensor in zip(parameter.tensors, _apart(parameter, arrays[path]), strict=True):
            held = sum(t.nbytes for t in files[-1].values())
            if files[-1] and held + tensor.astype(kind).nbytes > SHARD_BYTES:
                files.append({})
            files[-1][folder.full_name(name)] = np.ascontiguousarray(tensor.astype(kind))
    names = [
        SINGLE if len(files) == 1 else f"model-{i + 1:05}-of-{len(files):05}.safetensors" for i in range(len(files))
    ]
    for name, tensors in zip(names, files, strict=True):
        save_file(tensors, part / name, metadata={"format": "pt"})
    if len(files) > 1:
        total = sum(t.nbytes for tensors in files for t in tensors.values())
        weight_map = {tensor: name for name, tensors in zip(names, files, strict=True) for tensor in tensors}
        (part / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2))
    said = "torch_dtype" if "torch_dtype" in folder.config else "dtype"
    (part / "config.json").write_text(json.dumps({**folder.config, said: dtype}, indent=2) + "\n")
    for name in COPIED:
        if (source / name).exists():
            shutil.copy(source / name, part / name)
    part.rename(target)


def _apart(parameter: Parameter, value: np.ndarray) -> list[np.ndarray]:
    """The tensors that a parameter was made of."""
    whole = value.T if parameter.matrix else value
    ends = np.cumsum([shape[0] for shape in parameter.shapes])[:-1]
    return np.split(whole, ends)
