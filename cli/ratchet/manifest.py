"""A job that is not in a cluster yet: built in Python or read from a file, checked, written as YAML."""

from __future__ import annotations

import copy
import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ratchet.errors import InvalidJob, endings_as
from ratchet.html import description
from ratchet_api.job import API_VERSION, KIND
from ratchet_api.job import RLTrainingJob as ApiJob
from ratchet_api.job import Spec as ApiSpec
from ratchet_api.stages import Stage
from ratchet_api.validate import problems


@dataclass(frozen=True)
class RLTrainingJob:
    """A manifest. `spec` is typed, or a mapping as in YAML; `namespace` None is that of whoever submits it.

    job = ratchet.RLTrainingJob("sums", ratchet.Spec(model=ratchet.Model(preset="tiny"), ...))
    job.validate()
    """

    name: str
    spec: ApiSpec | Mapping[str, Any]
    namespace: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    """Where files of claims are looked for by `train`: the manifest's folder. None: the present one."""

    def manifest(self) -> dict[str, Any]:
        """Plain data as `kubectl apply` takes it: what was said, without defaults."""
        metadata: dict[str, Any] = {"name": self.name}
        for key in ("namespace", "labels", "annotations"):
            if value := getattr(self, key):
                metadata[key] = value if isinstance(value, str) else dict(value)
        said = (
            self.spec.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
            if isinstance(self.spec, ApiSpec)
            else copy.deepcopy(dict(self.spec))
        )
        return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": said}

    def to_yaml(self) -> str:
        """The manifest as YAML."""
        return yaml.safe_dump(self.manifest(), sort_keys=False, allow_unicode=True)

    def problems(self) -> list[str]:
        """What is wrong, a line each with its place and a way out, as `ratchet validate` says it; empty if nothing."""
        return [str(problem) for problem in problems(self.manifest())]

    def validate(self) -> RLTrainingJob:
        """The job itself. Raises InvalidJob with all that is wrong."""
        if found := self.problems():
            raise InvalidJob(found)
        return self

    def typed(self) -> ApiJob:
        """The job with all defaults. Raises InvalidJob."""
        self.validate()
        return ApiJob.model_validate({"spec": self.manifest()["spec"]})

    def _repr_html_(self) -> str:
        if found := self.problems():
            lines = "".join(f"<li>{html.escape(line)}</li>" for line in found)
            return description(self.name, [("problems", str(len(found)))]) + f"<ul>{lines}</ul>"
        spec = self.typed().spec
        rows = [
            ("model", spec.model.preset or spec.model.path or ""),
            (
                "stages",
                ", ".join(map(_in_words, spec.stages)),
            ),
            ("data", ", ".join(dataset.name for dataset in spec.datasets)),
            ("placements", ", ".join(placement.name for placement in spec.placements)),
            ("checkpoints", spec.checkpoint.directory),
        ]
        return description(self.name, rows)


def _in_words(stage: Stage) -> str:
    return f"{stage.name} ({stage.rl.method if stage.rl is not None else 'sft' if stage.sft is not None else 'curate'})"


def load(file: str | Path) -> RLTrainingJob:
    """The one RLTrainingJob of a YAML file. Raises InvalidJob, whose lines begin with file and line."""
    from ratchet_cli.manifests import read_job

    with endings_as(InvalidJob):
        data, _ = read_job(str(file))
    metadata = data["metadata"]
    return RLTrainingJob(
        metadata["name"],
        data["spec"],
        metadata.get("namespace"),
        metadata.get("labels") or {},
        metadata.get("annotations") or {},
        Path(file).absolute().parent,
    )
