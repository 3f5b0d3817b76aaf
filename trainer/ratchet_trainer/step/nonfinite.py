"""A loss or gradient that is no number: what becomes of its update, and what is left for inspection.

The program of the update keeps weights and moments as they were (`optimizer.step`), so nothing is spoilt whichever way
`onNonFinite` decides. An exact replay would meet the same batch again: failing is for good, and the batch is written
out; skipping is a function of the state like everything else, so a replay skips the same update.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ratchet_trainer import storage
from ratchet_trainer.errors import NonFinite
from ratchet_trainer.learning.learner import Row
from ratchet_trainer.storage import Location

if TYPE_CHECKING:
    from ratchet_trainer.process.runtime import Runtime
    from ratchet_trainer.step.stage import Stage

log = logging.getLogger(__name__)


def problem(found: Mapping[str, float]) -> str | None:
    """What is no number among `loss` and `gradient_norm`; None when both are."""
    bad = [f"{name} is {found[name]}" for name in ("loss", "gradient_norm") if not math.isfinite(found[name])]
    return " and ".join(bad) or None


def skip_or_fail(
    stage: Stage,
    runtime: Runtime,
    step: int,
    who: str,
    found: Mapping[str, float],
    rows: Sequence[Row],
    numbers: Mapping[str, np.ndarray],
) -> None:
    """An update of `who` (policy or critic) in `step` was not made: goes on where the stage says so. `numbers`:
    float64[R, T] of the rows, by name. *Collective.* Raises NonFinite, once the batch is written out."""
    what = problem(found)
    if stage.training.on_non_finite == "SkipUpdate":
        log.warning("step %d: %s of the %s; the update is left out", step, what, who)
        return
    content = _content(stage, step, who, found, rows, numbers)
    directory = Location.parse(runtime.job.spec.checkpoint.directory)
    where = runtime.broadcast(_write(directory, content) if runtime.process == 0 else None)
    raise NonFinite(
        f"step {step}: {what} of the {who}; the weights of the last checkpoint stand. The batch is in {where}. Lower "
        f"the learning rate, look at the data, or set onNonFinite: SkipUpdate"
    )


def _content(
    stage: Stage, step: int, who: str, found: Mapping[str, float], rows: Sequence[Row], numbers: Any
) -> dict[str, Any]:
    text = stage.programs.tokenizer.decode
    return {
        "step": step,
        "stage": stage.spec.name,
        "of": who,
        "found": {k: repr(v) for k, v in found.items()},
        "rows": [
            {
                "prompt": text(row.prompt),
                "response": text(row.response),
                "promptTokens": list(row.prompt),
                "responseTokens": list(row.response),
                "behaviour": None if row.behaviour is None else [repr(float(x)) for x in row.behaviour],
            }
            | {k: [repr(float(x)) for x in values[i, : len(row.response)]] for k, values in numbers.items()}
            for i, row in enumerate(rows)
        ],
    }


def _write(directory: Location, content: dict[str, Any]) -> str:
    path = directory / "inspect" / f"step-{content['step']:08d}-{content['of']}.json"
    try:
        storage.write(path, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        return f"no file ({path}: {error.strerror or error})"
    return str(path)
