"""Parameters written back as a folder in Hugging Face layout, which opens in any other tool.

Decides files and their order: tensors under the names and in the types that they had in the folder they came from,
its config, tokenizer and whatever else belongs to it copied. Memory: one file of tensors at a time.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ratchet_trainer.data.chat_template import FILE
from ratchet_trainer.model import families
from ratchet_trainer.model.huggingface import HEADS, INDEX, SINGLE, Folder
from ratchet_trainer.model.tensor_names import Parameter, parameters

FILE_BYTES = 4 << 30
DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
BYTES = {"F32": 4, "BF16": 2, "F16": 2, "F64": 8}
COPIED = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)


@dataclass(frozen=True)
class Tensor:
    """One that will be written: its bytes, and how it is made."""

    size: int
    make: Callable[[], np.ndarray]


def export(
    source: Path,
    target: Path,
    arrays: Mapping[str, np.ndarray],
    dtype: str | None = None,
    template: str | None = None,
    file_bytes: int = FILE_BYTES,
    done: Callable[[Path], None] = lambda file: None,
) -> None:
    """Writes parameters, by path, in the layout of the folder they came from. `dtype`: float32, bfloat16 or float16;
    None leaves each tensor in the type it had. `template`: the chat template that it was trained with, if not the
    folder's. `arrays` is asked for one parameter at a time. `file_bytes`: the largest file that is written, unless a
    single tensor is larger; `done` is told of each once it is written, and may take it away. Raises FileExistsError if
    `target` exists, ConfigurationInvalid for a source that cannot be read.

    The folder appears whole: it is written beside its place and renamed.
    """
    from safetensors.numpy import save_file

    if target.exists():
        raise FileExistsError(f"{target} exists; choose another folder or remove it")
    folder = Folder(source)
    folder.check()
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    config = folder.config
    if folder.architecture.tied is not families.architecture(config).tied:
        config = config | {"tie_word_embeddings": folder.architecture.tied}  # the tensors have the last word
    if dtype is not None:
        config = config | {"torch_dtype" if "torch_dtype" in config else "dtype": dtype}
    (part / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    mode = (part / "config.json").stat().st_mode & 0o777
    files = _files(folder, arrays, dtype, file_bytes)
    for name, tensors in files.items():
        save_file({n: tensor.make() for n, tensor in tensors.items()}, part / name, metadata={"format": "pt"})
        os.chmod(part / name, mode)  # the library lets nobody else read them
        done(part / name)
    if len(files) > 1:
        total = sum(tensor.size for tensors in files.values() for tensor in tensors.values())
        where = {tensor: name for name, tensors in files.items() for tensor in tensors}
        (part / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=2) + "\n")
    for name in COPIED:
        if (source / name).exists():
            shutil.copy(source / name, part / name)
    if template is not None:
        (part / FILE).write_text(template)
    for file in [path for path in part.iterdir() if path.name not in files]:
        done(file)
    part.rename(target)


def _files(
    folder: Folder, arrays: Mapping[str, np.ndarray], dtype: str | None, most: int
) -> dict[str, dict[str, Tensor]]:
    """File -> its tensors, made when they are written."""
    files: list[dict[str, Tensor]] = [{}]
    for name, tensor in _tensors(folder, arrays, dtype):
        if files[-1] and sum(t.size for t in files[-1].values()) + tensor.size > most:
            files.append({})
        files[-1][name] = tensor
    count = len(files)
    names = [SINGLE] if count == 1 else [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    return dict(zip(names, files, strict=True))


def _tensors(folder: Folder, arrays: Mapping[str, np.ndarray], dtype: str | None) -> Iterator[tuple[str, Tensor]]:
    for path, parameter in parameters(folder.architecture).items():
        for i, shape in enumerate(parameter.shapes):
            name = folder.full_name(parameter.tensors[i])
            kind = DTYPES[dtype] if dtype is not None else folder.dtype(name)
            yield name, Tensor(math.prod(shape) * BYTES[kind], partial(_made, parameter, i, arrays, path, kind))
    for name in folder.rest():
        if not (folder.architecture.tied and name in HEADS):  # it would contradict the embedding
            yield name, Tensor(folder.tensor(name).nbytes, partial(folder.tensor, name))


def _made(parameter: Parameter, i: int, arrays: Mapping[str, np.ndarray], path: str, kind: str) -> np.ndarray:
    return np.ascontiguousarray(parameter.apart(np.asarray(arrays[path]))[i].astype(_numpy(kind)))


def _numpy(kind: str) -> np.dtype:
    import ml_dtypes

    kinds = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "BF16": ml_dtypes.bfloat16}
    found: np.dtype = np.dtype(kinds[kind])
    return found
