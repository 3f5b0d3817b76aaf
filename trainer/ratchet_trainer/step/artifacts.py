"""Weights written for other tools when a stage is over: `spec.export`.

Decides where they go and when they are there already: a folder carries a note of whose weights it holds, so a restart
writes nothing twice, an earlier export of the same job gives way, and nobody else's folder is touched.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet_trainer import storage
from ratchet_trainer.errors import ConfigurationInvalid, StorageUnavailable, TrainerError
from ratchet_trainer.step.state import State
from ratchet_trainer.storage import Location
from ratchet_trainer.storage.local_copy import local_copy

if TYPE_CHECKING:
    from ratchet_trainer.process.runtime import Runtime
    from ratchet_trainer.step.stage import Programs

log = logging.getLogger(__name__)

NOTE = "ratchet.json"
BUCKET_FILE_BYTES = 1 << 30
"""Largest file of tensors that goes to a bucket: it is in memory while it does."""


def export(runtime: Runtime, programs: Programs, state: State) -> dict[str, Any] | None:
    """Writes the weights of a stage that is over, if the job wants them. Returns what `status.artifacts[]` shows. The
    state must be committed. *Collective.*

    Raises ConfigurationInvalid where something else is in the way, StorageUnavailable.
    """
    spec = runtime.job.spec
    last = state.stage.index == len(spec.stages) - 1
    if spec.export is None or (spec.export.when == "Completed" and not last):
        return None
    each = spec.export.when == "EachStage"
    target = Location.parse(spec.export.directory, "spec.export.directory")
    target = target / state.stage.name if each else target
    shown = {"stage": state.stage.name, "step": state.step, "path": str(target)}
    note = shown | {"jobUID": runtime.job.uid, "weightsSha256": runtime.durable.hashes.get("weightsSha256")}
    there = runtime.broadcast(_found(target) if runtime.process == 0 else None)
    if there == note:
        return shown
    _refuse_foreign(runtime, target, there)
    arrays = runtime.durable.host_copies(state.arrays(), "params/")
    runtime.durable.on_first(lambda: _write(runtime, programs, target, arrays, note, there))
    log.info("the weights of step %d are in %s", state.step, target)
    return shown


def check(runtime: Runtime) -> None:
    """Refuses, before the first step, a folder in which the last one would find something else. *Collective.* Raises
    ConfigurationInvalid."""
    spec = runtime.job.spec
    if spec.export is None:
        return
    folder = Location.parse(spec.export.directory, "spec.export.directory")
    targets = [folder / s.name for s in spec.stages] if spec.export.when == "EachStage" else [folder]
    for target in targets:
        _refuse_foreign(runtime, target, runtime.broadcast(_found(target) if runtime.process == 0 else None))


def _refuse_foreign(runtime: Runtime, target: Location, there: dict[str, Any] | None) -> None:
    if there is not None and there.get("jobUID") != runtime.job.uid:
        of = f" of job {there['jobUID']}" if "jobUID" in there else ""
        raise ConfigurationInvalid(
            f"spec.export: {target} holds something else{of}; name another folder, or move that away"
        )


def _found(target: Location) -> dict[str, Any] | None:
    """The note in a folder; an empty one where there is something without a note."""
    try:
        if (data := storage.read(target / NOTE)) is not None:
            return dict(json.loads(data))
    except (OSError, ValueError, TypeError):
        pass
    return {} if storage.exists(target) or storage.names(target) else None


def _write(
    runtime: Runtime,
    programs: Programs,
    target: Location,
    arrays: dict[str, Any],
    note: dict[str, Any],
    there: dict[str, Any] | None,
) -> None:
    from ratchet_trainer.model.export import export as write
    from ratchet_trainer.model.lora import Merged

    model, wanted = runtime.job.spec.model, runtime.job.spec.export
    assert model.path is not None, "the type's rules"
    assert wanted is not None, "asked where there is one"
    weights: Any = {k.removeprefix("params/"): v for k, v in arrays.items()}
    try:
        if model.lora is not None:
            assert programs.folder is not None, "a model with a path is a folder"
            weights = Merged(programs.folder, weights, float(model.lora.alpha) / model.lora.rank)
        source = local_copy(model.path, "spec.model.path")
        put = _on_bucket if target.on_bucket else _on_file_system
        put(
            target,
            partial(write, source, arrays=weights, dtype=wanted.dtype, template=model.chat_template),
            note,
            there,
        )
    except TrainerError:
        raise
    except OSError as error:
        raise StorageUnavailable(f"spec.export: {target}: {error}; make room or mend the storage") from error


def _on_file_system(
    target: Location, write: Callable[..., None], note: dict[str, Any], there: dict[str, Any] | None
) -> None:
    """Whole with its note before it has its name: a folder without one is somebody else's."""
    path = target.local
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.made")
    shutil.rmtree(made, ignore_errors=True)
    write(made)
    (made / NOTE).write_text(json.dumps(note) + "\n")
    if there is not None:  # this job's own, of other weights: it had stages added, or lost a checkpoint
        path.rename(path.with_name(f"{path.name}-step-{there.get('step')}"))
    made.rename(path)


def _on_bucket(
    target: Location, write: Callable[..., None], note: dict[str, Any], there: dict[str, Any] | None
) -> None:
    """Nothing can be renamed there: the note says first whose the folder is, and last what it holds. An earlier export
    of the job is replaced."""
    storage.write(target / NOTE, json.dumps({"jobUID": note["jobUID"]}).encode())
    for name in storage.tree(target):
        if name != NOTE:
            storage.delete(target / name)
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary) / "model"
        # A file leaves the disk as soon as it is in the bucket.
        write(made, done=lambda file: _moved(file, target / file.name), file_bytes=BUCKET_FILE_BYTES)
    storage.write(target / NOTE, (json.dumps(note) + "\n").encode())


def _moved(file: Path, to: Location) -> None:
    storage.write(to, file.read_bytes())
    file.unlink()
