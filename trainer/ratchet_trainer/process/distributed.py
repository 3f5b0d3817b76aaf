"""One JAX over all processes of an attempt: the coordinator, the collectives, the mesh.

Decides how JAX is set up before anything is computed: flags that bits depend on, the compilation cache, which addresses
are bound, how soon a silent peer is given up. Waiting for the devices is in `accelerator`, what must be found in
`start_check`, how devices lie on the mesh in `device_grid`. Control values do not travel here (`agreement`).
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ratchet_api.job import Parallelism
from ratchet_trainer.checkpoints import program_cache
from ratchet_trainer.checkpoints.program_cache import ProgramCache
from ratchet_trainer.errors import PeerLost
from ratchet_trainer.process import accelerator, start_check
from ratchet_trainer.process.agreement import CONNECT_SECONDS, SILENCE_SECONDS, patience
from ratchet_trainer.process.device_grid import AXES, device_grid
from ratchet_trainer.process.environment import Environment
from ratchet_trainer.storage import Location

if TYPE_CHECKING:
    from jax.sharding import AxisType, Mesh

log = logging.getLogger(__name__)

XLA_FLAGS = "--xla_cpu_enable_fast_math=false"
"""Pinned, because compiled bits follow from them; `podTemplate.env` may name others. They are part of the identity."""


def set_flags() -> None:
    """What must be in the environment before JAX is imported."""
    os.environ.setdefault("XLA_FLAGS", XLA_FLAGS)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")


def start(environment: Environment, cache: Location) -> ProgramCache:
    """Sets JAX up, joins the other processes and touches the devices.

    Raises PeerLost when the coordinator does not answer, AcceleratorUnavailable when the devices do not start,
    ConfigurationInvalid when they are not those that were asked for.
    """
    import jax

    programs = use_cache(cache)
    # Its handler would replace our own, and one set afterwards never agrees on a step.
    jax.config.update("jax_enable_preemption_service", False)
    if environment.processes > 1:
        _join(environment)
    if environment.asked.platform == "tpu":
        start_check.log_locked_memory()
    found = accelerator.devices(environment.asked.platform, jax.devices, accelerator.device_files())
    start_check.check(environment.asked, environment.processes, start_check.Found.of(found), os.environ)
    return programs


def _join(environment: Environment) -> None:
    import jax

    assert environment.coordinator is not None
    host, _, port = environment.coordinator.rpartition(":")
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        _bind_gloo(environment.address)
        _share_compiled_programs()
    v6 = ":" in environment.address
    if not environment.leader:
        _await_coordinator(host.strip("[]"), int(port))
    try:
        jax.distributed.initialize(
            environment.coordinator,
            num_processes=environment.processes,
            process_id=environment.process,
            coordinator_bind_address=f"[{environment.address}]:{port}" if v6 else f"{environment.address}:{port}",
            heartbeat_timeout_seconds=SILENCE_SECONDS,
            initialization_timeout=int(CONNECT_SECONDS),
            # Everything is said above; JAX's own look for Kubernetes would want an API token, which pods do not have.
            cluster_detection_method="deactivate",
        )
    except RuntimeError as error:
        raise PeerLost(f"JAX's coordinator at {environment.coordinator}: {error}") from error


def use_cache(folder: Location) -> ProgramCache:
    """Has JAX keep every compiled program in a folder."""
    import jax

    programs = program_cache.use(folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return programs


def use_index(programs: ProgramCache, job: Mapping[str, Any]) -> None:
    """Has programs of the cache loaded without being traced first, where that can be done safely. JAX must have been
    started. `job`: the job's spec."""
    from ratchet_trainer.checkpoints import jitted, program_key
    from ratchet_trainer.checkpoints.program_index import ProgramIndex

    try:
        jitted.use(ProgramIndex(programs, program_key.surroundings(job)))
    except (program_key.Indescribable, OSError) as why:
        log.warning("programs are traced at every start: %s", why)


ONE = Parallelism()


def mesh(parallelism: Parallelism = ONE) -> Mesh:
    """The mesh of all devices. Raises ConfigurationInvalid when they are not data x fsdp x tensor."""
    import jax

    return jax.sharding.Mesh(device_grid(jax.devices(), parallelism), AXES, axis_types=_auto())


def one_device() -> Mesh:
    """A mesh of this process's first device, for what needs no other."""
    import jax

    return jax.make_mesh((1, 1, 1), AXES, axis_types=_auto(), devices=jax.local_devices()[:1])


def _auto() -> tuple[AxisType, ...]:
    # Pinned: JAX's own default differs between its ways of making a mesh, and between its versions.
    import jax

    return (jax.sharding.AxisType.Auto,) * len(AXES)


def _bind_gloo(address: str) -> None:
    # By default gloo takes the address of the machine's host name. A pod's own address is right everywhere; JAX has no
    # setting for it, hence this reach into its library.
    from jax._src.lib import _jax  # type: ignore[attr-defined]  # JAX's own

    if (make := getattr(_jax, "make_gloo_tcp_collectives", None)) is not None and not isinstance(
        make, functools.partial
    ):
        _jax.make_gloo_tcp_collectives = functools.partial(make, hostname=address)


def _share_compiled_programs() -> None:
    # JAX lets process 0 alone write the cache. On CPUs the key holds a fingerprint of the topology that differs from
    # process to process, so the others would compile anew at every start; the kinds of the devices tell enough.
    import jax
    from jax._src import cache_key

    kinds = getattr(cache_key, "_hash_devices", None)
    if kinds is not None and hasattr(cache_key, "_hash_accelerator_config"):
        cache_key._hash_accelerator_config = kinds
        jax.config.update("jax_share_binary_between_hosts", True)  # what one has compiled, the others need not


def _await_coordinator(host: str, port: int) -> None:
    # A client that calls before the coordinator listens backs off for a whole second.
    deadline, pauses = time.monotonic() + CONNECT_SECONDS, patience()
    while True:
        try:
            socket.create_connection((host, port), timeout=5.0).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise PeerLost(f"JAX's coordinator at {host}:{port}: {error}") from error
            time.sleep(next(pauses))
