"""Which files of a Hugging Face `datasets` folder hold a split: as `save_to_disk` wrote it, or laid out as on the hub.

Decides it from names and the library's JSON files alone; the library itself is not needed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ratchet_trainer.data.lfs import refuse_pointer
from ratchet_trainer.errors import ConfigurationInvalid

STATE, SPLITS = "state.json", "dataset_dict.json"
READ = (".parquet", ".jsonl", ".ndjson")
NOT_READ = (".csv", ".tsv", ".json", ".txt", ".zip", ".tar", ".gz", ".zst", ".arrow")
SHARD = re.compile(r"[-_.]\d{4,}(-of-\d{4,})?$")
"""What numbers a file of several."""


def files_of(folder: Path, split: str | None) -> list[Path]:
    """The files of a split (None: the only one, or train) in order; all are tables or all JSON Lines.

    Raises ConfigurationInvalid, with the splits that there are; OSError.
    """
    if (folder / SPLITS).exists():
        splits = _json(folder / SPLITS).get("splits")
        if not isinstance(splits, list) or not all(isinstance(name, str) for name in splits):
            raise ConfigurationInvalid(f"{folder / SPLITS}: splits, a list of names, is missing")
        return _saved(folder / _chosen(folder, split, splits))
    if (folder / STATE).exists():
        own = _json(folder / STATE).get("_split")
        if split is not None and own is not None and split != own:
            raise ConfigurationInvalid(f"{folder}: holds split {own!r}, not {split!r}; leave huggingFace.split out")
        return _saved(folder)
    return _on_the_hub(folder, split)


def _saved(folder: Path) -> list[Path]:
    state = _json(folder / STATE)
    named = state.get("_data_files")
    entries = [entry for entry in named if isinstance(entry, dict)] if isinstance(named, list) else []
    names = [str(entry["filename"]) for entry in entries if "filename" in entry]
    if not names:
        raise ConfigurationInvalid(f"{folder / STATE}: names no data files; write the folder again with save_to_disk")
    if state.get("_indices_data_files"):
        raise ConfigurationInvalid(
            f"{folder / STATE}: the rows are chosen by a table of indices, which is not read; call flatten_indices() "
            "before save_to_disk"
        )
    absent = [name for name in names if not (folder / name).exists()]
    if absent:
        raise ConfigurationInvalid(f"{folder}: {STATE} names files that are not there: {', '.join(absent)}")
    return [folder / name for name in names]


def _on_the_hub(folder: Path, split: str | None) -> list[Path]:
    for root in (folder / "data", folder):
        found = sorted(p for p in root.rglob("*") if p.suffix in READ and p.is_file() and not _hidden(p, root))
        if found:
            break
    else:
        other = sorted(p.name for p in folder.rglob("*") if p.suffix in NOT_READ and p.is_file())
        seen = f" (there is {', '.join(other[:5])})" if other else ""
        raise ConfigurationInvalid(
            f"{folder}: no data set: neither {STATE} nor {SPLITS} of save_to_disk, nor {', '.join(READ)} files in it "
            f"or in data/{seen}; load it with the datasets library and write it with save_to_disk or to_parquet"
        )
    by_split: dict[str, list[Path]] = {}
    for path in found:
        by_split.setdefault(_split_of(path, root), []).append(path)
    files = by_split[_chosen(folder, split, list(by_split))]
    folders = sorted({str(path.parent.relative_to(folder)) for path in files})
    if len(folders) > 1:
        raise ConfigurationInvalid(
            f"{folder}: the split lies in several folders, {', '.join(folders)}; set huggingFace.path to one of them"
        )
    if len({path.suffix == ".parquet" for path in files}) > 1:
        raise ConfigurationInvalid(f"{folder}: both Parquet and JSON Lines files make up the split; keep one kind")
    return files


def _split_of(path: Path, root: Path) -> str:
    """`train-00000-of-00002.parquet`, `train.jsonl`, `train/0000.parquet` -> train."""
    name = SHARD.sub("", path.stem)
    if re.fullmatch(r"\d+", name) or name in ("data", "part"):
        return path.parent.name if path.parent != root else "train"
    return name


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.relative_to(root).parts)


def _chosen(folder: Path, split: str | None, there: list[str]) -> str:
    if split is None and len(there) == 1:
        return there[0]
    wanted = split or "train"
    if wanted not in there:
        raise ConfigurationInvalid(
            f"{folder}: no split {wanted!r}; set huggingFace.split to one of {', '.join(sorted(there)) or 'none'}"
        )
    return wanted


def _json(file: Path) -> dict[str, Any]:
    refuse_pointer(file)
    try:
        found = json.loads(file.read_bytes())
    except ValueError as error:
        raise ConfigurationInvalid(f"{file}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConfigurationInvalid(f"{file}: not a JSON object")
    return found
