"""A trainer process that says at its end what it has traced, lowered and compiled.

Started by the tests as a program, in place of `python -m ratchet_trainer`. Names of the functions, one list an event of
JAX's, go to `traced-N.json` beside the job file, as soon as there is one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ratchet_trainer.app import main
from ratchet_trainer.process import distributed

FILE = Path(os.environ["RATCHET_JOB_FILE"]).parent / f"traced-{os.environ.get('RATCHET_PROCESS', '0')}.json"
EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "traced",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowered",
    "/jax/core/compile/backend_compile_duration": "compiled",
}
found: dict[str, list[str]] = {name: [] for name in EVENTS.values()}


def write() -> None:
    FILE.write_text(json.dumps(found))


def count(event: str, _: float, **about: Any) -> None:
    if event in EVENTS:
        found[EVENTS[event]].append(str(about.get("fun_name", "")))
        write()


start = distributed.start


def counted_start(*arguments: Any) -> Any:
    import jax

    jax.monitoring.register_event_duration_secs_listener(count)
    return start(*arguments)


write()
distributed.start = counted_start
main()
