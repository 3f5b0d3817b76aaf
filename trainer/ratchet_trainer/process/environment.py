"""Who this process is: what the pod's environment and files tell it.

Decides how the variables and the job file are read. Everything here is fixed for the life of the process; what may
change while it runs comes through the stage gate (`stage_gate.py`).
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ratchet_api import protocol
from ratchet_api.exact_environment import exact_environment
from ratchet_api.protocol.documents import JobFile
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.process.start_check import Asked
from ratchet_trainer.storage import Location

ENV_TERMINATION_LOG = "RATCHET_TERMINATION_LOG"
"""Replaces /dev/termination-log outside Kubernetes."""

ENV_COMPILATION_CACHE = "RATCHET_COMPILATION_CACHE"
"""Replaces `cache/` in the checkpoint directory."""

ENV_UNTIL_STEP = "RATCHET_UNTIL_STEP"
"""The gang leaves with 75 once this step is committed; for `ratchet train --until-step`."""

ENV_PATH_MAP = "RATCHET_PATH_MAP"
"""JSON, pod path -> real path, deepest first: set where a machine forbids mount namespaces."""

ENV_PARENT = "RATCHET_PARENT"
"""Process id of the `ratchet train` that this process must not outlive."""


@dataclass(frozen=True)
class Environment:
    """One process of one attempt."""

    namespace: str
    name: str
    uid: str
    attempt: int
    jobset_uid: str
    last_step: int  # the last step that the job's status knows of; 0 = none
    processes: int
    process: int
    coordinator: str | None  # host:port, None for one process
    address: str  # what the servers of this process listen on
    job_file: Path
    stage_gate_file: Path
    termination_log: Path
    compilation_cache: Location | None
    until_step: int | None = None
    grace_seconds: int = protocol.SPOT_GRACE_SECONDS
    asked: Asked = field(default_factory=Asked)  # of the devices
    worker: int | None = None  # its number, where the process is of a worker of the rollout fleet

    @property
    def leader(self) -> bool:
        return self.process == 0

    @property
    def owner(self) -> dict[str, Any]:
        """Who holds the checkpoint directory when this attempt does."""
        return {"jobUID": self.uid, "attempt": self.attempt, "jobSetUID": self.jobset_uid}

    @property
    def tag(self) -> str:
        """What distinguishes this attempt's files: `a<N>-<uid8>`, of a worker `w<I>-a<N>-<uid8>`."""
        own = "" if self.worker is None else f"w{self.worker}-"
        return f"{own}a{self.attempt}-{self.jobset_uid[:8]}"


def read_environment(env: Mapping[str, str] = os.environ) -> Environment:
    """The environment of this process. Raises ConfigurationInvalid for a variable that is missing or not a number."""
    processes = _number(env, protocol.ENV_PROCESSES, 1)
    if protocol.ENV_PROCESS in env:
        process = _number(env, protocol.ENV_PROCESS, 0)
    else:
        hosts = _number(env, protocol.ENV_HOSTS_PER_SLICE, processes)
        process = _number(env, protocol.ENV_SLICE, 0) * hosts + _number(env, "JOB_COMPLETION_INDEX", 0)
    if not 0 <= process < processes:
        raise ConfigurationInvalid(f"process {process} of {processes}: {protocol.ENV_PROCESSES} does not fit the pod")
    coordinator = env.get(protocol.ENV_COORDINATOR) or None
    if processes > 1 and coordinator is None:
        raise ConfigurationInvalid(f"{protocol.ENV_COORDINATOR} (host:port of process 0) is not set")
    cache = env.get(ENV_COMPILATION_CACHE)
    return Environment(
        namespace=env.get(protocol.ENV_NAMESPACE, "default"),
        name=env.get(protocol.ENV_JOB_NAME, ""),
        uid=env.get(protocol.ENV_JOB_UID, ""),
        attempt=_number(env, protocol.ENV_ATTEMPT, 1),
        jobset_uid=env.get(protocol.ENV_JOBSET_UID) or str(uuid.uuid4()),
        last_step=_number(env, protocol.ENV_LAST_STEP, 0),
        processes=processes,
        process=process,
        coordinator=coordinator if processes > 1 else None,
        address=env.get(protocol.ENV_POD_IP) or "127.0.0.1",
        job_file=Path(env.get(protocol.ENV_JOB_FILE, protocol.JOB_FILE)),
        stage_gate_file=Path(env.get(protocol.ENV_STAGE_GATE_FILE, protocol.STAGE_GATE_FILE)),
        termination_log=Path(env.get(ENV_TERMINATION_LOG, "/dev/termination-log")),
        compilation_cache=Location.parse(cache, ENV_COMPILATION_CACHE) if cache else None,
        until_step=_number(env, ENV_UNTIL_STEP, 0) or None,
        grace_seconds=_number(env, protocol.ENV_GRACE_SECONDS, protocol.SPOT_GRACE_SECONDS),
        asked=Asked(
            platform=env.get(protocol.ENV_PLATFORM) or None,
            devices_per_process=_number(env, protocol.ENV_DEVICES_PER_PROCESS, 0) or None,
            slices=_number(env, protocol.ENV_SLICES, 0) or None,
        ),
        worker=_number(env, protocol.ENV_WORKER, 0) if env.get(protocol.ENV_WORKER) else None,
    )


def read_job_file(path: Path) -> dict[str, Any]:
    """The attempt's job, a `JobFile` as plain data. Raises ConfigurationInvalid."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigurationInvalid(f"{path}: the job cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationInvalid(f"{path}: not JSON: {error}") from error
    try:
        data = JobFile.model_validate(content).plain()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigurationInvalid(f"{path}: {where or 'the whole'}: {first['msg']}") from error
    _map_paths(data["spec"], json.loads(os.environ.get(ENV_PATH_MAP, "{}")))
    return data


def _map_paths(spec: dict[str, Any], mapping: Mapping[str, str]) -> None:
    """Puts real paths in the place of a pod's, on a machine where the pod's could not be mounted."""
    holders = [(spec["checkpoint"], key) for key in ("directory", "localDirectory") if key in spec["checkpoint"]]
    holders += [(spec["model"], "path")] if "path" in spec["model"] else []
    files = ("jsonl", "parquet", "huggingFace")
    holders += [(dataset[kind], "path") for dataset in spec["datasets"] for kind in files if kind in dataset]
    for holder, key in holders:
        for mounted, real in mapping.items():
            if holder[key] == mounted or holder[key].startswith(mounted.rstrip("/") + "/"):
                holder[key] = real + holder[key][len(mounted) :]
                break


def exact_environment_of(spec: Mapping[str, Any], platform: str | None = None) -> dict[str, str]:
    """The variables that must stand before Python starts; `spec` as plain JSON, `platform` as in `Asked`."""
    mode = spec.get("reproducibility", {})
    shards = mode.get("virtualShards") if mode.get("mode") == "Exact" else None
    cpu = spec.get("podTemplate", {}).get("resources", {}).get("requests", {}).get("cpu")
    return exact_environment(cpu, shards, tpu=platform == "tpu")


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    value = env.get(name, "")
    if value and not value.isdigit():
        raise ConfigurationInvalid(f"{name}={value!r} is not a whole number")
    return int(value) if value else default
