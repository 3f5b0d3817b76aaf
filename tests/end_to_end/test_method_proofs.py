"""Each method with a manifest of its own, killed without and with notice: all hashes are those of a calm run."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

import pytest
import yaml

from ratchet_api.job import RLTrainingJob
from ratchet_trainer.algorithm.methods import PRESETS
from ratchet_trainer.tools.local import Folder
from ratchet_trainer.tools.prove import Kill, compare, schedule, undisturbed

FOLDER = Path(__file__).parents[1] / "manifests"
PROVED = {*PRESETS, "curate"}
MANIFESTS = [f for f in sorted(FOLDER.glob("*.yaml")) if f.stem in PROVED]


@pytest.fixture(autouse=True)
def functions_beside_the_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders there stand for the ConfigMaps that manifests name."""
    monkeypatch.setenv("RATCHET_VERIFIERS_FOLDER", str(Path(__file__).parents[1] / "manifests"))


def job(manifest: Path) -> RLTrainingJob:
    text = manifest.read_text().replace("/manifests/", f"{FOLDER}/")
    return RLTrainingJob.model_validate({"spec": yaml.safe_load(text)["spec"]})


def proved(folder: Path, manifest: Path, plan: list[Kill]) -> int:
    """How many kills there were; fails where a hash differs."""
    one = job(manifest)
    expected, said = undisturbed(folder, "proof", one, 1), []
    found = compare(expected, Folder(folder / "killed", "proof", one, folder / "cache"), 1, plan, said.append)
    assert found["equal"], "\n".join(said)
    assert found["stepsLostWithNotice"] == 0
    for file in (folder / "undisturbed").glob("datasets/*/*"):  # what curate stages made
        assert (folder / "killed" / file.relative_to(folder / "undisturbed")).read_bytes() == file.read_bytes()
    return found["kills"]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda f: f.stem)
def test_a_kill_without_and_one_with_notice_change_no_bit(manifest: Path, tmp_path: Path) -> None:
    warm_up = takewhile(lambda stage: stage.sft is not None, job(manifest).spec.stages)
    first = sum(stage.advance.steps for stage in warm_up)
    kills = [Kill("step", first, 0.0, 0, False), Kill("step", first, 0.0, 0, True)]
    assert proved(tmp_path, manifest, kills) == 2


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda f: f.stem)
def test_four_random_kills_change_no_bit(manifest: Path, tmp_path: Path) -> None:
    steps = sum(stage.advance.steps for stage in job(manifest).spec.stages if stage.curate is None)
    assert proved(tmp_path, manifest, schedule(4, 0, steps, 1)) >= 1
