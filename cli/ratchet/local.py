"""Runs on this machine, as `ratchet train` makes them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.errors import ApprovalNeeded, RatchetError, TrainingStopped
from ratchet.html import curve, description
from ratchet.manifest import RLTrainingJob
from ratchet.reading import absolute, main_curve, metrics, needs_trainer, rows, samples
from ratchet_api.validate import processes as count

if TYPE_CHECKING:
    from ratchet_trainer.storage import Location


@dataclass(frozen=True)
class Run:
    """A run on this machine. What is asked of it is read from its folder: a run that goes on has more."""

    name: str
    folder: Path
    result: dict[str, Any]
    """What it came to, as `ratchet train --json` writes it: step, stage, finished, hashes, seconds by category."""

    @property
    def step(self) -> int:
        """The last committed step."""
        return int(self.result["step"])

    @property
    def finished(self) -> bool:
        """Whether all stages are done."""
        return bool(self.result.get("finished"))

    def metrics(self) -> Any:
        """`ratchet.metrics` of this run."""
        return metrics(self)

    def samples(self, step: int | None = None, *, wrong: bool = False) -> Any:
        """`ratchet.samples` of this run."""
        return samples(self, step, wrong=wrong)

    def place(self) -> Location:
        """Its checkpoint directory."""
        from ratchet_trainer.tools.working_folder import checkpoints_in

        return checkpoints_in(self.folder)

    def _repr_html_(self) -> str:
        speed = self.result.get("tokensPerSecond")
        shown = [
            ("step", f"{self.step}, stage {self.result['stage']}{', finished' if self.finished else ''}"),
            ("tokens a second", f"{speed:.0f}" if speed else ""),
            ("weights", str(self.result.get("weightsSha256", ""))[:12]),
        ]
        try:
            return description(self.name, shown) + curve(*main_curve(list(rows(self))))
        except RatchetError:
            return description(self.name, shown)


def train(
    job: RLTrainingJob,
    workdir: str | os.PathLike[str] | None = None,
    *,
    until_step: int | None = None,
    processes: int | None = None,
    model: str | os.PathLike[str] | None = None,
    approve: bool = False,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """Trains the job on this machine until it is done, and returns its run; goes on with what is in the folder.

    `workdir`: by default .ratchet/NAME; `until_step`: where to stop; `processes`: by default the first placement's;
    `model`: the folder that pods see as spec.model.path; `approve`: go on after stages that need an approval;
    `progress` is called with each new /progress document, by default lines go to standard error. An interrupt
    (KeyboardInterrupt) commits and ends the processes. Raises InvalidJob, ApprovalNeeded, TrainingStopped.
    """
    typed = job.typed()
    needs_trainer()
    from ratchet_cli.beside import take_functions_beside, with_files_beside
    from ratchet_cli.train import SYSEXITS
    from ratchet_cli.train_printer import Printer
    from ratchet_trainer.errors import TrainerError
    from ratchet_trainer.tools import local

    beside = job.folder or Path()
    take_functions_beside(typed, beside)
    typed = with_files_beside(typed, beside)
    if model is not None:
        here = typed.spec.model.model_copy(update={"path": str(Path(model).absolute())})
        typed = typed.model_copy(update={"spec": typed.spec.model_copy(update={"model": here})})
    path = absolute(workdir, job.name)
    try:
        folder = local.Folder(path, job.name, typed)
        with folder.locked():
            told = progress if progress is not None else Printer(folder.directory)
            gang = processes or count(typed.spec.placements[0])
            code, message = local.train(folder, gang, until_step, told, approve=approve)
            run = Run(job.name, path, folder.result())
    except local.FolderInUse as error:
        raise TrainingStopped(str(error), os.EX_TEMPFAIL) from None
    except TrainerError as error:
        raise TrainingStopped(str(error), SYSEXITS.get(error.exit, os.EX_SOFTWARE)) from None
    except OSError as error:
        raise TrainingStopped(f"{path}: {error}", os.EX_IOERR) from None
    if code == 0:
        return run
    shell = SYSEXITS.get(code, os.EX_SOFTWARE)
    if (boundary := message.get("unapproved")) is not None:
        stage = typed.spec.stages[boundary["stage"]].name
        words = (
            f"stage {stage} ended at step {boundary['step']} ({boundary['rule']}); what comes next needs an approval"
        )
        raise ApprovalNeeded(f"{words}: look at ratchet.samples, then go on with approve=True", shell, stage)
    text = message.get("message") or f"exit code {code}; the log is in {folder.local}"
    raise TrainingStopped(f"stopped at step {run.step}: {text}", shell)


def run_of(folder: str | os.PathLike[str]) -> Run:
    """A run that is in a working folder already. Raises RatchetError where there is none."""
    needs_trainer()
    path = Path(folder).absolute()
    if not (path / "local" / "job.json").is_file():
        raise RatchetError(
            f"{path}: no working folder of `ratchet train`; ratchet.metrics reads any checkpoint directory"
        )
    from ratchet_api.job import RLTrainingJob as ApiJob
    from ratchet_trainer.tools.local import Folder

    told = json.loads((path / "local" / "job.json").read_bytes())
    found = Folder(path, told["name"], ApiJob.model_validate({"spec": told["spec"]}))
    return Run(told["name"], path, found.result())
