"""What pods get from claims and ConfigMaps, for a run on this machine: folders of these names beside the manifest.

A file of claim `data` that is /data/sums.jsonl in the pods is `data/sums.jsonl` beside the manifest here, unless the
path itself is there. Functions of ConfigMap `steps` are in the folder `steps` beside it.
"""

from __future__ import annotations

import os
from pathlib import Path

from ratchet_api.datasets import Dataset, HuggingFace, Jsonl, Parquet
from ratchet_api.job import RLTrainingJob
from ratchet_api.verifiers import ENV_CONFIG_MAP_FOLDER
from ratchet_operator.build.verifiers import verifier_volumes

MODELS, CONFIG = "models", "config.json"
"""Folder beside a manifest where the config.json files of models are looked for, by the models' names."""
FILES = ("jsonl", "parquet", "hugging_face")
"""Fields of a data set that name a file or a folder."""


def with_files_beside(job: RLTrainingJob, folder: Path) -> RLTrainingJob:
    """The job as this machine sees it: files of claims that are not at their path are those in `folder`, if there."""
    datasets = [_here(dataset, folder.absolute()) for dataset in job.spec.datasets]
    return job.model_copy(update={"spec": job.spec.model_copy(update={"datasets": datasets})})


def take_functions_beside(job: RLTrainingJob, folder: Path) -> None:
    """Where `folder` has one of the job's ConfigMaps, this process and its children look for all of them there, unless
    the environment already says where."""
    names = [volume["configMap"]["name"] for volume, _ in verifier_volumes(job.spec)]
    if any((folder / name).is_dir() for name in names):
        os.environ.setdefault(ENV_CONFIG_MAP_FOLDER, str(folder.absolute()))


def files_beside(job: RLTrainingJob, folder: Path) -> list[Path]:
    """The files that a run of the job on this machine takes from `folder`, relative to it: those of claims and of
    ConfigMaps, and the `config.json` that `ratchet fit` reads."""
    sources = [dataset.file for dataset in job.spec.datasets]
    places = [_beside(source, folder) for source in sources if source is not None and source.claim_name is not None]
    places += [folder / volume["configMap"]["name"] for volume, _ in verifier_volumes(job.spec)]
    if job.spec.model.path is not None:
        places.append(folder / MODELS / Path(job.spec.model.path).name / CONFIG)
    files = [
        file for place in dict.fromkeys(places) for file in ([place] if place.is_file() else sorted(place.rglob("*")))
    ]
    return [file.relative_to(folder) for file in files if file.is_file() and "__pycache__" not in file.parts]


def _here(dataset: Dataset, folder: Path) -> Dataset:
    file = dataset.file
    if file is None or file.claim_name is None or Path(file.path).exists():
        return dataset
    beside = _beside(file, folder)
    if not beside.exists():
        return dataset
    field = next(name for name in FILES if getattr(dataset, name) is file)
    return dataset.model_copy(update={field: file.model_copy(update={"path": str(beside)})})


def _beside(source: Jsonl | Parquet | HuggingFace, folder: Path) -> Path:
    assert source.claim_name is not None, "asked of what is on a claim"
    return folder / source.claim_name / Path(source.path).name
