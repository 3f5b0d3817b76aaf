"""Numbers of other implementations: agreement with them, and what is said of a file that holds no such numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ratchet_trainer.tools.objective_check import FORMS, INPUTS, NotGolden, differences

GOLDEN = sorted((Path(__file__).parent.parent / "golden" / "policy-loss").glob("case-*.npz"))


@pytest.fixture
def bent(tmp_path: Path) -> Any:
    """Writes the first golden file with some arrays changed (None: left out) and returns its path."""

    def write(**changes: Any) -> Path:
        arrays = {k: v for k, v in {**np.load(GOLDEN[0]), **changes}.items() if v is not None}
        np.savez(tmp_path / "bent.npz", **arrays)
        return tmp_path / "bent.npz"

    return write


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_every_array_agrees(path: Path) -> None:
    found = differences(path)
    assert set(found) == set(np.load(path).files) - INPUTS
    beyond = {name: d for name, d in found.items() if d["difference"] > 1e-6 + 1e-5 * d["largest"]}
    assert beyond == {}


def test_a_wrong_number_shows_in_its_array_only(bent: Any) -> None:
    name = "loss|gspo|seq-mean-token-mean|0.2|0.28"
    found = differences(bent(**{name: np.float32(0.5)}))
    assert [n for n, d in found.items() if d["difference"] > 1e-6 + 1e-5 * d["largest"]] == [name]
    assert found[name]["largest"] == 0.5


def test_groups_may_stand_in_any_order(bent: Any) -> None:
    z = np.load(GOLDEN[0])
    order = np.array([4, 0, 5, 1, 6, 2, 7, 3])
    found = differences(bent(**{k: z[k][order] for k in (*INPUTS, *FORMS)}))
    assert all(found[name]["difference"] < 1e-6 for name in FORMS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"values": None}, "arrays values are missing"),
        ({"rewards": np.zeros(3)}, r"rewards and group \[sequences\]"),
        ({"mask": np.eye(8, 12)}, "from each sequence's first token to its last"),
        ({"group": np.arange(8)}, "two sequences or more"),
        ({"adv_grpo": np.zeros((8, 3))}, r"adv_grpo has shape \(8, 3\), which should be \(8, 12\)"),
        ({"adv_rloo": np.full((8, 12), np.nan)}, "adv_rloo holds values that are not finite"),
        ({"adv_grpo": None}, "a loss with adv_grpo, which is missing"),
        ({"loss|sac|token-mean|0.2|0.2": np.zeros(())}, "no array that this check knows"),
        ({name: None for name in np.load(GOLDEN[0]).files if name not in INPUTS}, "nothing to compare with"),
    ],
)
def test_a_file_of_other_things_is_refused_with_its_fault(bent: Any, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(NotGolden, match=words):
        differences(bent(**changes))


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    for name, content in (("a.npz", b"no archive"), ("b.npz", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(NotGolden, match="archive of arrays"):
            differences(tmp_path / name)


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ratchet_cli.main", "objective", "check", *arguments], capture_output=True, text=True
    )


def test_the_command_prints_each_difference_and_says_in_json_what_it_found(bent: Any, tmp_path: Path) -> None:
    done = check(str(bent(**{"kl|k2": np.zeros((8, 12))})), "--json", str(tmp_path / "out.json"))
    assert done.returncode == 1, done.stderr
    assert "62 of 63 arrays within tolerance" in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if "BEYOND" in line)
    assert line.startswith("kl|k2 ")
    verdict = json.loads((tmp_path / "out.json").read_text())
    assert verdict["equal"] is False
    assert verdict["arrays"]["kl|k2"]["allowed"] == pytest.approx(1e-6)


def test_the_command_exits_as_sysexits_say(bent: Any, tmp_path: Path) -> None:
    assert check(str(GOLDEN[0]), "--tolerance", "1e-5").returncode == 0
    done = check(str(bent(values=None)))
    assert (done.returncode, "arrays values are missing" in done.stderr) == (os.EX_DATAERR, True)
    done = check(str(tmp_path / "absent.npz"))
    assert (done.returncode, "absent.npz" in done.stderr) == (os.EX_NOINPUT, True)
