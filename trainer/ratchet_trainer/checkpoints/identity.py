"""What a run is, beyond its state: everything that its bits may follow from.

Decides what must agree for a checkpoint to be continued at all (the configuration of the stages that have begun), and
what may differ but ends the promise of equal bits (versions, topology, settings): then `exactSince` says from which
step it holds anew.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from typing import Any

from ratchet_api.canonical import said, sha256
from ratchet_api.job import Spec
from ratchet_trainer.errors import ConfigurationInvalid

FLAGS = ("JAX_", "XLA_", "LIBTPU_")
"""Variables that begin so may change bits; where compiled programs are kept does not."""

SETTINGS = {
    "prng": "jax_default_prng_impl",
    "partitionable": "jax_threefry_partitionable",
    "x64": "jax_enable_x64",
    "precision": "jax_default_matmul_precision",
}
"""Settings of JAX that bits follow from, by the name that a checkpoint gives them."""

DEVICE_COUNT = "--xla_force_host_platform_device_count="
VERSION = "0.4.0"
"""Version of the code that results depend on: raised with every change that changes bits."""


def config_hash(spec: Spec, stage: int) -> str:
    """Hash of what stages 0..stage are made of: model, seed, these stages, their data sets; not of where they run."""
    begun = spec.stages[: stage + 1]
    names = {name for s in begun for name in s.dataset_names}
    datasets = sorted((d for d in spec.datasets if d.name in names), key=lambda d: d.name)
    parts = {
        "model": said(spec.model),
        "seed": spec.seed,
        "stages": [said(s) for s in begun],
        "datasets": [said(d) for d in datasets],
    }
    return sha256(parts | ({"reproducibility": mode} if (mode := said(spec.reproducibility)) else {}))


def present(mesh: Any) -> dict[str, Any]:
    """Versions, settings and topology of this process, as plain JSON."""
    import jax
    from jaxlib.version import __version__ as jaxlib_version

    device = mesh.devices.flat[0]
    return {
        "versions": {
            "ratchet": VERSION,
            "jax": jax.__version__,
            "jaxlib": jaxlib_version,
            "python": platform.python_version(),
        },
        "settings": {
            **{name: os.environ.get(name, "") for name in ("NPROC", "PYTHONHASHSEED")},
            **{k: v for k, v in sorted(os.environ.items()) if k.startswith(FLAGS) and "CACHE" not in k},
            **{said: str(getattr(jax.config, name)) for said, name in SETTINGS.items()},
        },
        "topology": {
            "device": device.device_kind,
            "cpu": _cpu_features() if device.platform == "cpu" else "",
            "mesh": {name: int(size) for name, size in mesh.shape.items()},
            "processes": jax.process_count(),
        },
    }


def dtype_of(stored: dict[str, Any]) -> str:
    """The number format that a run is computed in."""
    return str(stored["settings"].get("dtype", "float32"))


def check(stored: dict[str, Any], spec: Spec, now: dict[str, Any], step: int) -> dict[str, Any] | None:
    """`exactSince {step, reason}` of a run that goes on from `step` with the identity `stored`.

    None means exact from the start.
    Raises ConfigurationInvalid if the begun stages are not those that were trained.
    """
    stage = stored["stage"]
    if stage >= len(spec.stages) or config_hash(spec, stage) != stored["config"]:
        raise ConfigurationInvalid(
            f"spec: the checkpoint of step {step} was made with another model, seed, data set or stage "
            f"(stages 0 to {stage} have begun and cannot change); "
            "restore the manifest, or use another checkpoint directory"
        )
    exact = spec.reproducibility.mode == "Exact"
    if exact:
        stored, now = _without_count(stored), _without_count(now)
    differences = [
        f"{part}.{key}: {stored[part].get(key)} -> {now[part].get(key)}"
        for part in ("versions", "settings", "topology")
        for key in sorted(stored[part].keys() | now[part].keys())
        if stored[part].get(key) != now[part].get(key)
    ]
    if differences and exact:
        raise ConfigurationInvalid(
            f"mode Exact: step {step} was made elsewhere ({'; '.join(differences)[:1000]}), and its bits cannot be had "
            f"here. Go on where it was made, or create the job anew with reproducibility.mode PerTopology"
        )
    if differences and spec.reproducibility.mode == "PerTopology":
        return {"step": step, "reason": "; ".join(differences)[:1000]}
    return stored.get("exactSince")


def of_sampler(identity: dict[str, Any], spec: Spec) -> str:
    """Hash of what the bits of rollouts follow from beside call, weights and program; workers say it of themselves."""
    return sha256(_without_count(identity) if spec.reproducibility.mode == "Exact" else identity)


def flags_with_devices(flags: str, devices: int | None = None) -> str:
    """XLA_FLAGS that make the CPUs of a process count as so many devices (None: as XLA decides), else unchanged."""
    kept = [flag for flag in flags.split() if not flag.startswith(DEVICE_COUNT)]
    return " ".join(kept if devices is None else [*kept, f"{DEVICE_COUNT}{devices}"])


def _without_count(identity: dict[str, Any]) -> dict[str, Any]:
    """What mode Exact does not depend on is left out: how many devices there are, and in how many processes."""
    flags = flags_with_devices(identity["settings"].get("XLA_FLAGS", ""))
    topology = {k: v for k, v in identity["topology"].items() if k not in ("mesh", "processes")}
    return identity | {"settings": identity["settings"] | {"XLA_FLAGS": flags}, "topology": topology}


def _cpu_features() -> str:
    # XLA compiles for the features that it finds, so they decide bits; 16 hex digits tell machines apart well enough.
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            text = file.read(8192)
    except OSError:
        return platform.machine()
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return hashlib.sha256(" ".join(sorted(found[1].split())).encode()).hexdigest()[:16] if found else platform.machine()
