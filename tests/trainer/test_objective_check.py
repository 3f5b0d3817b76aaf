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

from ratchet_trainer.algorithm.objective.aggregation import AGGREGATIONS
from ratchet_trainer.algorithm.objective.surrogate import SURROGATES
from ratchet_trainer.tools.objective_check import FORMS, INPUTS, NotGolden, differences

FOLDER = Path(__file__).parent.parent / "golden"
GOLDEN = sorted((FOLDER / "policy-loss").glob("case-*.npz"))
PEERS = [FOLDER / "peers" / f"{peer}.json" for peer in ("verl", "trl")]
"""What verl's and TRL's own functions say of the same inputs; `bench/peers.py` wrote it."""


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


@pytest.mark.parametrize("path", PEERS, ids=lambda p: p.stem)
def test_every_number_of_a_peer_agrees(path: Path) -> None:
    found = differences(path)
    beyond = {name: d for name, d in found.items() if d["difference"] > 1e-6 + 1e-5 * d["largest"]}
    assert beyond == {}
    silent = {name for name, d in found.items() if d["largest"] == 0 and not name.startswith("clipfrac|")}
    assert silent == set(), "zeros agree with everything"


def test_the_peers_were_asked_for_every_form_that_a_method_has() -> None:
    """A surrogate, aggregation or advantage that no peer was asked for would go unchecked."""
    asked = {name for path in PEERS for name in differences(path)}
    losses = [name.split("|") for name in asked if name.startswith("loss|")]
    assert {kind for _, kind, *_ in losses} == set(SURROGATES)
    assert {aggregation for _, _, aggregation, *_ in losses} == set(AGGREGATIONS)
    assert {term.split("=")[0] for _, _, _, _, _, *terms in losses for term in terms} >= {
        "dual",
        "cap",
        "entropy",
        "k3",
    }
    assert set(FORMS) | {"kl|k1", "kl|k2", "kl|k3", "gae_returns", "gae_adv_whitened"} <= asked
    assert {"importance|2", "value_grad|0.2", "log_prob|0.7", "entropy|0.7", "logits_grad|0.7"} <= asked
    assert any(name.startswith("adamw|") for name in asked)


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


@pytest.mark.parametrize("content", ["no JSON", "[]", "{}", '{"arrays": {"mask": [[1, 2], [3]]}}'])
def test_a_file_that_is_no_json_of_arrays_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(NotGolden, match="nested lists of numbers in `arrays`"):
        differences(tmp_path / "a.json")


def test_a_term_that_lacks_its_input_is_refused(bent: Any) -> None:
    for term, missing in (("cap=2", "sampled_log_probs"), ("entropy=0.1", "entropy")):
        with pytest.raises(NotGolden, match=f"with {missing}, which is missing"):
            differences(bent(**{f"loss|ppo|token-mean|0.2|0.2|{term}": np.float32(0)}))


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
