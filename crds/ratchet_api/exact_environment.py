"""The variables that must stand before a trainer's Python starts: for bits that are the same everywhere, and for speed.

One answer for whoever starts a trainer: the operator puts it into the pod, `ratchet train` into its processes, and a
trainer that finds another environment starts itself again. What bits depend on is never taken from the machine.
"""

from __future__ import annotations

from collections.abc import Container

FIXED = {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C.UTF-8"}

PERFORMANCE_ENV = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""What bits do not depend on, so whoever sets it otherwise is heard. Large blocks of memory lie on huge pages where the
kernel gives them to those who ask: an update on a CPU spent a fifth of its time in page faults."""


def performance_environment(given: Container[str]) -> dict[str, str]:
    """The variables of PERFORMANCE_ENV that are not among the names `given`."""
    return {name: value for name, value in PERFORMANCE_ENV.items() if name not in given}


def exact_environment(cpu: str | None, virtual_shards: int | None = None, *, tpu: bool = False) -> dict[str, str]:
    """From `podTemplate.resources.requests.cpu`: NPROC sizes XLA's thread pool and so decides the order of its sums.

    A pool has at least one thread for each device of its process. So in mode Exact, with `virtual_shards`, it gets as
    many as there can ever be devices: then their number does not decide it. On a `tpu` in the other modes NPROC is left
    alone: there the sums are the chips', and one thread would starve their host.
    """
    if tpu and virtual_shards is None:
        return dict(FIXED)
    return {"NPROC": str(max(threads(cpu), virtual_shards or 0))} | FIXED


def threads(cpu: str | None) -> int:
    """The whole number of CPUs in a quantity such as 2, 1.5 or 1500m, at least 1."""
    amount = cpu or "1"
    return max(1, int(float(amount[:-1]) / 1000 if amount.endswith("m") else float(amount)))
