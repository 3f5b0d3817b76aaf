"""`ratchet explain`: the plan in words, and every knob with where its value comes from."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from ratchet_api.job import Spec, parse_spec
from ratchet_api.presets import PRESETS, Preset
from ratchet_cli.explain import plan, text
from ratchet_cli.explain_knobs import COLUMNS, Knob, knobs_of
from ratchet_cli.main import main

ROOT = Path(__file__).parents[2]
SUMS = ROOT / "examples/sums.yaml"


def ratchet(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ratchet_cli.main", *arguments], input=stdin, capture_output=True, text=True
    )


def spec(rl: dict[str, Any] | None = None, **parts: Any) -> Spec:
    stage = {"name": "reason", "rl": {"dataset": "sums"} | (rl or {}), "advance": {"steps": 7}}
    return parse_spec(
        {
            "model": {"preset": "tiny"},
            "datasets": [{"name": "sums", "reasoningGym": {"task": "chain_sum"}}],
            "stages": [stage],
            "checkpoint": {"directory": "/checkpoints"},
            "placements": [{"name": "here", "cpu": {"hosts": 2}}],
            **parts,
        }
    )


def knobs(rl: dict[str, Any] | None = None) -> dict[str, Knob]:
    return {k.name.removeprefix("rl."): k for k in knobs_of(spec(rl).stages[0])}


def test_the_plan_says_stages_placements_and_the_cost_of_a_restart() -> None:
    done = ratchet("explain", str(SUMS))
    assert done.returncode == 0, done.stderr
    for sentence in (
        "sums: 3 stages, at most 720 steps, seed 11",
        "Supervised fine-tuning on data set examples: 64 answers",
        "Reinforcement learning by method grpo on data set three-terms: 32 prompts x 8 responses of at most 3 tokens",
        "Over when train/accuracy (mean of 10) is at least 0.8; after 40 steps at the latest, and then it is over.",
        "1 slice of tpu-v6e-slice 2x4: 2 hosts of 4 chips, 8 chips in all, spot capacity",
        "at most 10 steps are made again",
        "no step is lost",
    ):
        assert sentence in done.stdout


def test_a_budget_is_said_with_how_long_it_lasts() -> None:
    budget = {"stage": "reason", "generatedTokens": 5000, "chipHours": "3"}
    (stage,) = plan("x", spec(budgets=[budget]))["stages"]
    assert stage["words"][-1] == (
        "Budget: 5000 generated tokens (without evaluations) and 3 chip hours (1.5 h on here); once that is spent, the "
        "job rests, with its last step committed, until the budget is raised."
    )
    (stage,) = plan("x", spec(budgets=[{"stage": "reason", "generatedTokens": 1, "onExceeded": "Fail"}]))["stages"]
    assert stage["words"][-1].endswith("1 generated token (without evaluations); once that is spent, the job fails.")
    assert not any("Budget" in line for line in plan("x", spec())["stages"][0]["words"])


def test_json_has_the_same_plan_in_figures() -> None:
    done = ratchet("explain", str(SUMS), "-o", "json")
    found = json.loads(done.stdout)
    assert found["placements"][0] | {"words": ""} == {
        "name": "spot", "hosts": 2, "chips": 8, "devices": 8, "capacity": "Spot", "waitSeconds": 900, "words": ""
    }  # fmt: skip
    assert found["restart"]["everySteps"] == found["restart"]["stepsLostAtMost"] == 10
    assert [s["kind"] for s in found["stages"]] == ["sft", "rl", "rl"]
    of_first = {k["name"]: k for k in found["stages"][1]["knobs"]}
    assert of_first["rl.groupSize"]["value"] == 8


def test_explaining_loads_no_jax() -> None:
    program = "import sys; sys.argv[1:] = ['explain', sys.argv[1]]; from ratchet_cli.main import main\n"
    program += "try: main()\nexcept SystemExit: pass\nassert 'jax' not in sys.modules and 'numpy' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program, str(SUMS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_manifest_with_problems_gets_the_words_of_validate(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    manifest = yaml.safe_load(SUMS.read_text())
    manifest["spec"]["stages"][1]["rl"]["groupSise"] = 3
    bad.write_text(yaml.safe_dump(manifest))
    said, explained = ratchet("validate", str(bad)), ratchet("explain", str(bad))
    assert explained.returncode == said.returncode == os.EX_DATAERR
    assert explained.stderr == said.stderr
    assert "did you mean groupSize?" in explained.stderr
    assert ratchet("explain", str(tmp_path / "absent.yaml")).returncode == os.EX_NOINPUT


def test_every_setting_says_where_it_comes_from() -> None:
    found = knobs({"method": "cispo", "groupSize": 4, "objective": {"clipLow": "0.1"}})
    assert found["groupSize"] == Knob("rl.groupSize", 4, 8, "manifest")
    assert found["promptsPerStep"] == Knob("rl.promptsPerStep", 16, 16, "default")
    assert found["objective.clipLow"] == Knob("rl.objective.clipLow", "0.1", "0.2", "manifest")
    assert found["objective.clipHigh"] == Knob("rl.objective.clipHigh", "0.28", "0.28", "preset cispo")
    assert found["advantage.delta"] == Knob("rl.advantage.delta", "1e-6", "1e-6", "default")


def test_knobs_of_another_estimator_are_set_apart() -> None:
    assert not knobs()["advantage.gamma"].applies
    of_ppo = knobs({"method": "ppo"})
    assert of_ppo["advantage.gamma"].applies
    assert of_ppo["advantage.gamma"].value == "1"
    assert not of_ppo["advantage.delta"].applies
    shown = text(plan("job", spec())).splitlines()
    assert any(line.startswith("  without effect here: ") and "rl.advantage.gamma" in line for line in shown)
    assert not any(line.startswith("  rl.advantage.gamma") for line in shown)


def test_a_penalty_brings_its_own_knobs_and_a_reference() -> None:
    assert knobs()["kl"].value is None
    found = knobs({"kl": {"coefficient": "0.01"}})
    assert found["kl.coefficient"] == Knob("rl.kl.coefficient", "0.01", "required", "manifest")
    assert found["kl.estimator"].value == "k3"
    assert str(found["reference"].value).startswith("frozen")


def test_a_reward_is_shown_knob_by_knob() -> None:
    prefix = {"name": "prefix", "weight": "0.5", "correctPrefix": {"python": {"entrypoint": "a:b"}, "beta": "10"}}
    found = knobs({"method": "sgpo", "rewards": [{"name": "right"}, prefix]})
    shown = {name: (k.value, k.default, k.source) for name, k in found.items() if name.startswith("rewards")}
    assert shown["rewards[right].of"] == ("accuracy", "accuracy", "default")
    assert shown["rewards[right].weight"] == ("1", "1", "default")
    assert shown["rewards[prefix].weight"] == ("0.5", "1", "manifest")
    assert shown["rewards[prefix].cycle"] == ("in every step", "in every step", "default")
    assert shown["rewards[prefix].correctPrefix.beta"] == ("10", "5", "manifest")
    assert shown["rewards[prefix].correctPrefix.steps"] == ("lines", "lines", "default")
    assert shown["rewards[prefix].correctPrefix.python.entrypoint"][0] == "a:b"
    assert not [name for name in shown if "http" in name or name in ("rewards[prefix].of", "rewards[right].length")]


def test_a_stage_that_makes_a_data_set_is_explained() -> None:
    done = ratchet("explain", str(ROOT / "tests/manifests/curate.yaml"))
    assert done.returncode == 0, done.stderr
    assert "curate: 3 stages, at most 6 steps" in done.stdout, "how many steps it has is not in the manifest"
    assert "chosen: what stage choose keeps, verified as where it comes from" in done.stdout
    assert "Looks through data set sums: 12 items a step, 4 responses each" in done.stdout
    assert "Over when every item is answered." in done.stdout
    stages = json.loads(ratchet("explain", str(ROOT / "tests/manifests/curate.yaml"), "-o", "json").stdout)["stages"]
    values = {knob["name"]: (knob["value"], knob["source"]) for knob in stages[1]["knobs"]}
    assert (stages[1]["kind"], stages[1]["steps"]) == ("curate", None)
    assert values["curate.keep.high"] == ("1", "manifest")
    assert values["curate.keep.low"] == ("more than none of them", "default")


def test_a_preset_may_bring_a_penalty_and_a_reference_along() -> None:
    found = knobs({"method": "prorl"})
    assert found["kl.coefficient"] == Knob("rl.kl.coefficient", "1e-4", "1e-4", "preset prorl")
    assert found["reference.optimizer"] == Knob("rl.reference.optimizer", "reset", "reset", "preset prorl")
    assert found["reference.patience"] == Knob("rl.reference.patience", "100", "100", "default")
    assert not found["reference.everySteps"].applies
    own = knobs({"method": "prorl", "reference": {"kind": "plateau", "patience": 5}})
    assert own["reference.patience"] == Knob("rl.reference.patience", 5, "100", "manifest")
    assert own["reference.optimizer"].value == "they are kept", "a reference that is given replaces all of the preset's"


def test_an_expansion_shows_its_own_knobs_alone() -> None:
    assert knobs()["expansion.kind"] == Knob("rl.expansion.kind", "none", "none", "preset grpo")
    assert not knobs()["expansion.maxRounds"].applies
    found = knobs({"method": "dapo", "promptsPerStep": 6})
    assert found["expansion.kind"] == Knob("rl.expansion.kind", "dynamicSampling", "dynamicSampling", "preset dapo")
    assert [found[f"expansion.{k}"].value for k in ("maxRounds", "promptsPerRound", "surplus")] == ["10", 6, "drop"]
    assert all(found[f"expansion.{k}"].applies for k in ("maxRounds", "promptsPerRound", "surplus"))
    found = knobs({"method": "scaf-grpo", "expansion": {"trueHard": {"patience": 9}}})
    assert found["expansion.trueHard.patience"] == Knob("rl.expansion.trueHard.patience", 9, "required", "manifest")
    assert found["expansion.exemptSteps"].value == "15 % of advance.steps, with trueHard 40 %"
    assert not found["expansion.maxRounds"].applies
    templates = [{"name": "plain", "text": "{question}"}]
    found = knobs({"method": "template-rl", "expansion": {"templates": templates}})
    assert found["expansion.templates"].value == templates
    assert found["expansion.baseline"] == Knob("rl.expansion.baseline", "pooled", "pooled", "default")
    assert not found["expansion.levels"].applies


def test_sampled_values_are_counted_before_a_run() -> None:
    rl = {"method": "vineppo", "promptsPerStep": 64, "maxResponseTokens": 300}
    found = knobs(rl)
    assert found["advantage.vine.steps"] == Knob("rl.advantage.vine.steps", "lines", "lines", "default")
    assert (found["advantage.vine.continuations"].value, found["advantage.vine.maxSteps"].value) == ("9", 16)
    shown = text(plan("job", spec(rl | {"advantage": {"vine": {"maxSteps": 5}}})))
    assert "split into lines, 5 at most; of more, neighbours are merged" in shown
    assert "a step has at most 2112, 9 continuations are sampled and verified: at most 19008 responses" in shown
    shown = text(plan("job", spec(rl | {"advantage": {"vine": {"steps": "tokens", "stepTokens": 100}}})))
    assert "split into steps of 100 tokens, 3 at most" in shown, "more do not fit into a response"
    templates = [{"name": "a", "text": "{question}"}, {"name": "b", "text": "Again: {question}"}]
    put = {"expansion": {"kind": "templates", "templates": templates}, "advantage": {"vine": {"maxSteps": 5}}}
    assert "a step has at most 2176, " in text(plan("job", spec(rl | put))), "each template has a beginning of its own"
    assert "advantage.vine.steps" not in knobs({"method": "ppo"})


@pytest.mark.parametrize("method", PRESETS)
def test_every_column_of_a_row_is_a_knob_that_says_the_preset(method: str) -> None:
    # Written down apart from the code under test: what a row says must be found again, whatever it is made of.
    row = PRESETS[method]
    filled = [k for k in _with_method(method) if k.source == f"preset {method}"]
    for column in dataclasses.fields(Preset):
        if column.name in COLUMNS or getattr(row, column.name) is None:
            continue
        named = [k for k in filled if column.name in k.name.split(".")]
        assert named, f"column {column.name} of {method} is shown nowhere"
    values = {k.name: k.value for k in filled}
    assert values["rl.advantage.estimator"] == row.advantage
    assert [values["rl.objective.clipLow"], values["rl.objective.clipHigh"]] == [f"{w:g}" for w in row.clip]


def _with_method(method: str) -> list[Knob]:
    """The stage of a method, the check of what it needs beside left out: a row is shown, not admitted."""
    stage = spec().stages[0]
    assert stage.rl is not None
    return knobs_of(stage.model_copy(update={"rl": stage.rl.model_copy(update={"method": method})}))


def test_the_cost_of_a_restart_is_no_more_than_the_longest_stage() -> None:
    found = plan("job", spec(checkpoint={"directory": "/checkpoints", "everySteps": 50}))
    assert found["restart"]["stepsLostAtMost"] == 7
    assert any("no stage is longer than 7" in sentence for sentence in found["restart"]["words"])


@pytest.mark.parametrize("file", sorted((ROOT / "examples").rglob("*.yaml")), ids=lambda f: f.stem)
def test_every_example_can_be_explained(file: Path) -> None:
    done = CliRunner().invoke(main, ["explain", str(file), "-o", "json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["stages"]


FLEET = """
apiVersion: ratchet.dev/v1alpha1
kind: RLTrainingJob
metadata: {name: fleet}
spec:
  model: {preset: tiny}
  datasets:
  - {name: sums, reasoningGym: {task: chain_sum, size: 40}}
  stages:
  - name: reason
    rl: {dataset: sums, promptsPerStep: 8, rollouts: {lag: 1, promptsPerCall: 2}}
    advance: {steps: 10}
  checkpoint: {directory: /checkpoints/fleet}
  rollouts:
    workers: {min: 1, max: 8}
    placements: [{name: spot, accelerator: tpu-v6e-slice, topology: 2x2}]
  placements: [{name: cpu, cpu: {hosts: 1}}]
"""


def test_a_fleet_is_explained_and_sized_by_a_run(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text(FLEET)
    said = ratchet("explain", str(file)).stdout
    assert "Sampled 1 step ahead" in said
    assert "in 4 calls a step: more than 4 workers have nothing to do" in said
    assert "A fleet of 1 to 8 workers samples for the trainer, each on spot (4 chips)" in said
    books = tmp_path / "run/ledger"
    books.mkdir(parents=True)
    (books / "a1-0.jsonl").write_text('{"at": 60, "step": 10, "steps": 10, "generate": 40.0, "update": 10.0}\n')
    said = ratchet("explain", str(file), "--measured", str(tmp_path / "run")).stdout
    assert "4.00 s of sampling and 1.00 s of all else a step" in said
    assert "With rl.rollouts.lag 1 and 4 workers like the trainer a step takes about 1.00 s instead of 5.00 s" in said
    file.write_text(FLEET.replace("promptsPerCall: 2", "promptsPerCall: 4"))
    said = ratchet("explain", str(file), "--measured", str(tmp_path / "run")).stdout
    assert "a step has 2 calls: lower rl.rollouts.promptsPerCall first" in said
    done = ratchet("explain", str(file), "--measured", str(tmp_path))
    assert (done.returncode, "holds no ledger" in done.stderr) == (66, True)
