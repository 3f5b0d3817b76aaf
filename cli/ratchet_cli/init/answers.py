"""The three answers: which model, which task, where. Raises Unfit for what cannot be meant, with what could be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ratchet_api.tpu_topologies import ImpossibleShape, Shape, shape

TINY, SUMS, LAPTOP = "tiny", "sums", "laptop"
ACCELERATORS = {
    # as people call them -> value of GKE's label
    "v4": "tpu-v4-podslice",
    "v5e": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
}
CHIPS = 4
"""Of a machine, where a topology exists with more than one kind of them."""
FILES = {".jsonl": "jsonl", ".parquet": "parquet"}


class Unfit(ValueError):
    """An answer that cannot be meant; the message says what could."""


@dataclass(frozen=True)
class Model:
    """`path` None: the built-in model."""

    path: str | None

    @property
    def on_bucket(self) -> bool:
        return self.path is not None and "://" in self.path


@dataclass(frozen=True)
class Data:
    """A reasoning-gym task, or a file."""

    task: str | None = None
    file: str | None = None

    @property
    def source(self) -> str:
        """The field of the manifest."""
        return "reasoningGym" if self.task else FILES[Path(self.file or "").suffix]

    @property
    def name(self) -> str:
        text = SUMS if self.task == SUMS else self.task or Path(self.file or "").stem
        return name_of(text)


@dataclass(frozen=True)
class Place:
    """`accelerator` None: CPUs of one machine."""

    accelerator: str | None = None
    topology: str = ""
    slice: Shape | None = None


def name_of(text: str) -> str:
    """A name that Kubernetes takes."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")
    return name if name and name[0].isalpha() else f"job-{name}".strip("-")


def model(said: str) -> Model:
    if said == TINY:
        return Model(None)
    if re.match(r"(gs|s3)://[^/]+/.", said):
        return Model(said.rstrip("/"))
    folder = Path(said).expanduser()
    if not folder.is_dir():
        raise Unfit(f"{said}: no such folder; say {TINY}, a folder with config.json and weights, gs:// or s3://")
    if not (folder / "config.json").is_file():
        raise Unfit(f"{said}: has no config.json, so it is no model's folder; `ratchet model fetch` makes one")
    return Model(str(folder.absolute()))


def data(said: str) -> Data:
    if said == SUMS:
        return Data(task=SUMS)
    if Path(said).suffix in FILES:
        if "://" not in said and not Path(said).is_file():
            raise Unfit(f"{said}: no such file; say {SUMS}, a task of reasoning-gym, or a .jsonl or .parquet file")
        return Data(file=said if "://" in said else str(Path(said).absolute()))
    if "/" in said or "." in said:
        raise Unfit(f"{said}: neither a .jsonl nor a .parquet file; docs/data.md says how to make one")
    if said not in tasks():
        raise Unfit(f"{said}: no task of reasoning-gym{_near(said)}; say {SUMS}, a task, or a .jsonl or .parquet file")
    return Data(task=said)


def tasks() -> list[str]:
    """Names of reasoning-gym's tasks. Raises Unfit where it is not installed."""
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise Unfit("reasoning-gym is not installed; pip install 'ratchet-rl[trainer]'") from None
    return sorted(DATASETS)


def _near(said: str) -> str:
    import difflib

    near = difflib.get_close_matches(said, tasks(), 3, 0.5)
    return f" (did you mean {', '.join(near)}?)" if near else ""


def place(said: str) -> Place:
    if said == LAPTOP:
        return Place()
    wanted, _, chips = said.partition(":")
    kind, _, topology = wanted.partition("-")
    accelerator = ACCELERATORS.get(kind)
    if accelerator is None or not topology:
        examples = "v5e-2x2, v6e-2x4, v5p-2x2x4"
        raise Unfit(f"{said}: say {LAPTOP}, or a TPU slice of GKE as TYPE-TOPOLOGY: {examples}")
    try:
        return Place(accelerator, topology, shape(accelerator, topology, int(chips) if chips.isdecimal() else None))
    except ImpossibleShape as impossible:
        if impossible.field == "chipsPerNode" and not chips:  # both machines exist: the usual one has four chips
            return Place(accelerator, topology, shape(accelerator, topology, CHIPS))
        raise Unfit(f"{said}: {impossible}") from None
