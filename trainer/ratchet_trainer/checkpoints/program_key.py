"""What a compiled program depends on, as a digest that is known before the program is traced.

Two halves. The *surroundings* are the same for all programs of a process: the sources of the trainer and of the API
types, the versions of what traces and compiles, the environment and JAX's settings, the machine and its devices, the
job. The *description* is of one program: the function with everything that it closes over, its static arguments, and
the shapes, number formats and places of the others.

Decides what counts. What cannot be described has no key (`Indescribable`), and its program is traced at every start: a
program that nothing is known of must not be taken for another. In doubt more is in the key, as a miss costs a trace.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ratchet_api.canonical import canonical

PACKAGES = ("ratchet_api", "ratchet_trainer")
"""Ours: every byte of their sources is in the key."""
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "ml-dtypes", "libtpu")
"""Others': their versions are in it."""
KNOWN = (*PACKAGES, "jax", "jaxlib", "flax", "optax", "numpy", "ml_dtypes", "functools", "builtins")
"""Packages whose functions a program may be made of."""
VARIABLES = ("JAX_", "LIBTPU_", "XLA_")
"""Beginnings of the names of variables that tracing or compiling may read; their values are in it."""
THREADS = ("NPROC", "PYTHONHASHSEED")
NO_MATTER = ("jax_compilation_cache_dir", "JAX_COMPILATION_CACHE_DIR")
"""Settings that no program depends on, but that differ between folders."""


class Indescribable(TypeError):
    """Something that a program is made of, of which nothing more can be said."""


@runtime_checkable
class MadeOf(Protocol):
    """An object of ours that functions close over, and that is no dataclass."""

    def program_parts(self) -> Any:
        """All of it that a program may depend on."""


def surroundings(job: Mapping[str, Any]) -> str:
    """The digest of what all programs of this process share. JAX must have been started. Raises OSError and
    Indescribable where the sources are not there. `job`: the job's spec."""
    import jax

    backend = jax.devices()[0].client
    found = {
        "sources": {package: sources(_folder(package)) for package in PACKAGES},
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "environment": _environment(os.environ),
        "settings": {name: repr(value) for name, value in jax.config.values.items() if name not in NO_MATTER},
        "cpu": [platform.machine(), _cpu(), len(os.sched_getaffinity(0))],
        "backend": [backend.platform, backend.platform_version],
        "devices": [_device(device) for device in jax.devices()],
        "process": [jax.process_count(), jax.process_index()],
        "job": job,
    }
    return hashlib.sha256(canonical(found)).hexdigest()


def sources(folder: Path) -> str:
    """The digest of every Python file below a folder, names included. Raises Indescribable if there are none."""
    digest, files = hashlib.sha256(), sorted(folder.rglob("*.py"))
    if not files:
        raise Indescribable(f"{folder} has no sources")
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.relative_to(folder)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _folder(package: str) -> Path:
    found = importlib.import_module(package).__file__
    if found is None:
        raise Indescribable(f"{package} is in no folder")
    return Path(found).parent


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in sorted(environment.items())
        if (name.startswith(VARIABLES) or name in THREADS) and name not in NO_MATTER
    }


def _cpu() -> list[str]:
    """What the machine says of its processor, of which XLA's CPU backend uses what it finds."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            text = file.read(8192)
    except OSError:
        return [platform.processor()]
    fields = re.findall(
        r"^(?:vendor_id|cpu family|model|model name|stepping|flags|Features)\s*:.*$", text, re.MULTILINE
    )
    return sorted(set(fields))


def _device(device: Any) -> list[Any]:
    """One device: all that tells it from another."""
    place = [str(getattr(device, name, "")) for name in ("coords", "core_on_chip", "slice_index")]
    return [device.id, device.platform, device.device_kind, device.process_index, *place]


# One program


def digest(*values: Any) -> str:
    """The digest of descriptions. Raises Indescribable."""
    return hashlib.sha256(canonical([described(value) for value in values])).hexdigest()


def described(value: Any) -> Any:
    """A value as plain JSON from which it, as far as a program is concerned, follows. Raises Indescribable."""
    if value is None or value is Ellipsis or isinstance(value, bool | int | str):
        return [type(value).__name__, str(value)]
    if isinstance(value, float):
        return ["float", value.hex()]
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    if isinstance(value, enum.Enum):
        return ["enum", _name(type(value)), value.name]
    if isinstance(value, types.ModuleType):
        return ["module", _known(value.__name__)]
    if isinstance(value, type):
        return ["type", _name(value)]
    for kinds, describe in _KINDS:
        if isinstance(value, kinds):
            return describe(value)
    if isinstance(value, MadeOf):
        return ["object", _name(type(value)), described(value.program_parts())]
    if dataclasses.is_dataclass(value):
        parts = [[field.name, described(getattr(value, field.name))] for field in dataclasses.fields(value)]
        return ["dataclass", _name(type(value)), parts]
    return _of_jax(value)


def _sequence(value: Sequence[Any]) -> Any:
    return ["sequence", _name(type(value)), [described(one) for one in value]]


def _mapping(value: Mapping[Any, Any]) -> Any:
    pairs = [[described(key), described(one)] for key, one in value.items()]
    return ["mapping", _name(type(value)), sorted(pairs, key=canonical)]


def _set(value: Iterable[Any]) -> Any:
    return ["set", sorted((described(one) for one in value), key=canonical)]


def _partial(value: functools.partial[Any]) -> Any:
    return ["partial", described(value.func), _sequence(value.args), _mapping(value.keywords)]


def _method(value: types.MethodType) -> Any:
    return ["method", described(value.__func__), described(value.__self__)]


def _builtin(value: types.BuiltinFunctionType) -> Any:
    if value.__self__ is not None and not isinstance(value.__self__, types.ModuleType):
        raise Indescribable(f"{value!r}")
    return ["builtin", _known(value.__module__ or "builtins"), value.__qualname__]


def _function(value: types.FunctionType) -> Any:
    """A function: where it stands, its code, and what it closes over. What it calls is in the sources."""
    closed = [described(cell.cell_contents) for cell in value.__closure__ or ()]
    defaults = [described(value.__defaults__), described(value.__kwdefaults__)]
    wrapped = [described(value.__wrapped__)] if hasattr(value, "__wrapped__") else []
    return ["function", _known(value.__module__), value.__qualname__, _code(value.__code__), closed, defaults, wrapped]


def _code(code: types.CodeType) -> Any:
    constants = [described(one) for one in code.co_consts]
    return [code.co_firstlineno, code.co_code.hex(), list(code.co_names), list(code.co_freevars), constants]


def _array(value: Any) -> Any:
    if value.dtype.hasobject:
        raise Indescribable(f"an array of objects: {value!r}")
    data = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    return ["array", str(value.dtype), list(value.shape), data]


_KINDS: tuple[tuple[Any, Any], ...] = (
    ((tuple, list), _sequence),
    (dict, _mapping),
    ((set, frozenset), _set),
    (functools.partial, _partial),
    (types.MethodType, _method),
    (types.BuiltinFunctionType, _builtin),
    (types.FunctionType, _function),
    (types.CodeType, _code),
    (slice, lambda value: ["slice", described(value.start), described(value.stop), described(value.step)]),
    ((np.ndarray, np.generic), _array),
    (np.dtype, lambda value: ["dtype", str(value)]),
)
"""Kinds of values -> how one is described; the first that fits."""


def _of_jax(value: Any) -> Any:
    import jax

    if isinstance(value, jax.sharding.Mesh):
        devices = [_device(device) for device in value.devices.flat]
        return ["mesh", list(value.axis_names), list(value.devices.shape), devices, [str(t) for t in value.axis_types]]
    if isinstance(value, jax.sharding.PartitionSpec):
        return ["spec", str(value)]
    if isinstance(value, jax.sharding.NamedSharding):
        return ["named", described(value.mesh), described(value.spec), str(value.memory_kind)]
    if isinstance(value, jax.sharding.SingleDeviceSharding):
        return ["single", [_device(device) for device in value.device_set], str(value.memory_kind)]
    if isinstance(value, jax.tree_util.PyTreeDef):
        return ["tree", str(value)]
    if isinstance(value, jax.ShapeDtypeStruct):
        return ["shape", list(value.shape), str(value.dtype), described(value.sharding), bool(value.weak_type)]
    raise Indescribable(f"{type(value).__module__}.{type(value).__qualname__}")


def _name(kind: type) -> str:
    return f"{_known(kind.__module__)}.{kind.__qualname__}"


def _known(module: str | None) -> str:
    """A module of the packages whose contents are in the surroundings."""
    if module is None or module.partition(".")[0] not in KNOWN:
        raise Indescribable(f"a part of {module}")
    return module
