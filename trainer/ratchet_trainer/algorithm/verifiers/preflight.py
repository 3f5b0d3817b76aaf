"""What verifiers need of the machine, asked before JAX is imported and a device is touched.

Decides which jobs are refused for it: those that run a model's programs where they cannot be locked up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ratchet_trainer.errors import ConfigurationInvalid


def check_machine(spec: Mapping[str, Any]) -> None:
    """`spec`: of the job, as plain data. Raises ConfigurationInvalid; costs nothing where no program is run."""
    names = [
        dataset["name"]
        for dataset in spec["datasets"]
        if dataset.get("verifier") == "code" and dataset.get("code", {}).get("sandbox") != "Unsandboxed"
    ]
    if names and (refused := no_sandbox()) is not None:
        raise ConfigurationInvalid(f"data set {names[0]}: {refused}")


def no_sandbox() -> str | None:
    """Why programs cannot be locked up on this machine, with the way out; None if they can."""
    from ratchet_trainer.algorithm.verifiers.sandbox import available

    if (why := available()) is None:
        return None
    return (
        f"verifier code needs a sandbox, and there is none here: {why}; use nodes whose kernel and runtime allow "
        "seccomp filters, or say code.sandbox: Unsandboxed to run programs with the trainer's rights"
    )
