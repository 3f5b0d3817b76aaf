"""The variables that must stand before a trainer's Python starts, for its bits to be the same everywhere.

One answer for whoever starts a trainer: the operator puts it into the pod, `ratchet train` into its processes, and a
trainer that finds another environment starts itself again. Never taken from the machine.
"""

from __future__ import annotations

FIXED = {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C.UTF-8"}
SCALE = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}


def exact_environment(cpu: str | None) -> dict[str, str]:
    """From `podTemplate.resources.requests.cpu`: NPROC sizes XLA's thread pool and so decides the order of its sums."""
    return {"NPROC": str(threads(cpu))} | FIXED


def threads(cpu: str | None) -> int:
    """The whole number of CPUs in a Kubernetes quantity, at least 1."""
    amount = (cpu or "1").removesuffix("i")
    scale = SCALE.get(amount[-1])
    return max(1, int(float(amount) if scale is None else float(amount[:-1]) * scale))
