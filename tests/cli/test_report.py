"""`ratchet report`: one page about a run, from whatever there is of it."""

from __future__ import annotations

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tests.cli.report_runs import HOSTILE, ROOT, sample, write_run

from ratchet_cli.main import main
from ratchet_cli.report import folder_files
from ratchet_cli.report.attempts import attempts_of
from ratchet_cli.report.downsample import downsample
from ratchet_cli.report.learned import Change, of_stage
from ratchet_trainer.checkpoints import checkpoint
from ratchet_trainer.step import samples as kept_samples
from ratchet_trainer.storage import Location

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Elements and texts of a page; fails where elements are not nested as they should be."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.by_section: dict[str, list[str]] = {}
        self.section = ""
        self.feed(text)
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "section":
            self.section = str(dict(attrs)["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.texts.append(data)
            self.by_section.setdefault(self.section, []).append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def of(self, section: str) -> str:
        return " ".join(self.by_section.get(section, []))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def ratchet(*arguments: str, **environment: str) -> Any:
    return CliRunner().invoke(main, ["report", *arguments], env=environment)


def page_of(folder: Path, *arguments: str) -> Page:
    out = folder.parent / "page.html"
    done = ratchet(str(folder), "-o", str(out), "--force", *arguments)
    assert done.exit_code == 0, done.output
    assert out.stat().st_size < 2_000_000
    return Page(out.read_text(encoding="utf-8"))


def test_a_run_without_a_cluster_has_every_section(tmp_path):
    page = page_of(write_run(tmp_path / "run"))
    assert "It learned: held-out accuracy 0.167 → 1.000" in page.text
    assert len([svg for svg in page.named("svg") if svg["class"] == "curve"]) >= 7
    assert "not reported: no stage has a reference" in page.of("curves"), "KL was never a number"
    for words in ("warm-up", "reason", "told to go", "ended abruptly", "exit code 75"):
        assert words in page.of("timeline")
    assert "Goodput 60%: 18 s of the 30 s" in page.of("seconds")
    assert "Of the 40 s from the first start to the last end, that is 45%" in page.of("seconds")
    assert "at least 5" in page.of("recovery")
    assert "What is 2 + 3?" in page.of("samples")
    assert "task: basic_arithmetic" in page.of("manifest")
    assert "ratchet-rl" in page.of("versions")
    assert "name the job instead of the folder" in page.of("events")


def test_the_page_loads_nothing_and_runs_nothing_but_its_own_script(tmp_path):
    page = page_of(write_run(tmp_path / "run"))
    links = [a for _, attributes in page.elements for a in ("src", "href", "srcset", "data") if a in attributes]
    assert links == []
    policy = next(m["content"] for m in page.named("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in str(policy)
    assert len(page.named("script")) == 1


def test_what_a_model_wrote_stays_text(tmp_path):
    folder = write_run(tmp_path / "run", response=HOSTILE)
    page = page_of(folder)
    assert len(page.named("script")) == 1
    assert page.named("img") == []
    assert '<script>document.title="taken"</script>' in page.of("samples")
    assert "\u202e" not in page.text
    assert "\x1b" not in page.text
    assert "\\u202e" in page.of("samples")


def test_a_lone_surrogate_and_other_alphabets_can_be_written(tmp_path):
    folder = write_run(tmp_path / "run")
    text = json.dumps(sample(120, response="二加三 \ud800 é 🎲"))
    (folder / "samples/00000120.jsonl").write_text(text + "\n")
    assert "二加三 \\ud800 é 🎲" in page_of(folder).of("samples")


def test_samples_that_are_no_utf8_are_shown_and_counted(tmp_path):
    folder = write_run(tmp_path / "run")
    file = folder / "samples/00000120.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"response": "17"', b'"response": "a\xff\xfeb"'))
    said = page_of(folder).of("samples")
    assert "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b" in said
    assert "2 pieces that are no UTF-8" in said


def test_a_metric_file_cut_in_the_middle_of_a_line_costs_that_line_alone(tmp_path):
    folder = write_run(tmp_path / "run")
    file = folder / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-40] + b"\n\xff\xfe not json\n")
    page = page_of(folder)
    assert "2 lines could not be read and are left out" in page.of("curves")
    assert "step 20 to 100" in page.text


@pytest.mark.parametrize("gone", ["metrics.jsonl", "ledger", "journal", "samples", "local"])
def test_what_is_missing_is_said_in_its_place(tmp_path, gone):
    folder = write_run(tmp_path / "run")
    place = folder / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    page = page_of(folder)
    section, words = {
        "metrics.jsonl": ("curves", "no step was committed yet"),
        "ledger": ("seconds", "no ledger was kept"),
        "journal": ("timeline", "told to go"),
        "samples": ("samples", "a run keeps samples after its first step of reinforcement learning"),
        "local": ("manifest", "the folder has no manifest"),
    }[gone]
    assert words in page.of(section)


def test_a_file_that_holds_something_else_is_a_note(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "journal/0000000002.json").write_text('{"commit": {"step": "x", "path": 3, "boundary": {"stage": "?"}}}')
    (folder / "ledger/a1-aaaaaaaa.jsonl").write_text('{"step": 1, "at": "soon", "update": 1.0}\n[]\n')
    assert "held-out" in page_of(folder).text


def test_a_hundred_thousand_steps_are_put_together_and_the_page_says_so(tmp_path):
    folder = write_run(tmp_path / "run", steps=100_000, attempts=False)
    page = page_of(folder)  # which asserts the size
    assert re.search(r"each point: the mean of \d+ steps; band: smallest to largest", page.of("curves"))


def test_points_that_were_put_together_keep_mean_smallest_and_largest():
    points = [(step, float(step % 7)) for step in range(1, 10_001)] + [(50_000, 9.0)]
    found, size = downsample(points, 100)
    assert len(found) <= 100
    assert size == 500
    assert (min(p.low for p in found), max(p.high for p in found)) == (0.0, 9.0)
    assert found[0].mean == pytest.approx(sum(v for _, v in points[:500]) / 500)
    assert [p.step for p in found][-1] == 50_000, "a gap stays a gap"
    assert downsample(points[:50], 100)[1] == 1


def test_chance_is_not_called_learning():
    change = Change("held-out", "accuracy", 0.50, 0.55, (0, 100), error=0.06)
    assert change.verdict == "same"
    assert Change("held-out", "accuracy", 0.50, 0.75, (0, 100), error=0.06).verdict == "learned"
    assert Change("held-out", "accuracy", 0.75, 0.50, (0, 100), error=0.06).verdict == "worse"
    flat = [(step, {"train/accuracy": 0.5 + 0.1 * (-1) ** step}) for step in range(1, 100)]
    found = of_stage(flat, "reason", 0, 99)
    assert found is not None
    assert found.verdict == "same"


def test_times_of_a_copied_folder_are_not_believed(tmp_path):
    folder = write_run(tmp_path / "run")
    for file in (folder / "ledger").iterdir():
        os.utime(file)
    assert "times of the attempts are not known here" in page_of(folder).of("timeline")


def test_without_a_cluster_no_verdict_is_made_up(tmp_path):
    _, files = folder_files.read(Location.parse(write_run(tmp_path / "run")))
    assert [a.ended for a in attempts_of({}, files)] == ["told to go", "ended abruptly", "done"]
    assert [a.steps_lost for a in attempts_of({}, files)] == [0, 5, None]


def test_the_operator_s_record_comes_before_what_a_folder_tells(tmp_path):
    _, files = folder_files.read(Location.parse(write_run(tmp_path / "run")))
    record = {"number": 2, "verdict": "NodeLost", "evidence": "node n is gone", "chargedTo": "preemptions",
              "startTime": "2026-01-01T00:00:00Z", "finalTime": "2026-01-01T00:00:15Z", "stepsLost": 3,
              "recovery": {"detect": "1.5", "total": "9"}}  # fmt: skip
    second, third = attempts_of({"attempts": [record]}, files)[1:]
    assert (second.ended, second.charged_to, second.steps_lost) == ("NodeLost", "preemptions", 3)
    assert third.recovery == {"detect": 1.5, "total": 9.0}, "the recovery ended in the attempt after"


def test_money_is_named_only_for_a_price(tmp_path):
    folder = write_run(tmp_path / "run")
    shutil.rmtree(folder / "local")  # a folder of a cluster's job
    manifest = yaml.safe_load((ROOT / "examples/sums.yaml").read_text())
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(manifest))
    out = tmp_path / "page.html"
    asked = (str(tmp_path / "job.yaml"), "--workdir", str(folder), "-o", str(out), "--force")
    assert ratchet(*asked).exit_code == 0
    assert "No price was given" in (page := Page(out.read_text())).of("cost")
    assert "8 × tpu-v6e-slice" in page.of("cost")
    assert ratchet(*asked, "--price", "Spot=360", "--unit", "USD", "--price", "OnDemand=1").exit_code == 0
    said = Page(out.read_text()).of("cost")
    assert "24.00 USD" in said, "8 chips for 30 s at 360 an hour"
    assert "No capacity here has the price that was given for OnDemand" in said


def test_a_run_on_this_machine_is_not_billed_as_tpus(tmp_path):
    folder = write_run(tmp_path / "run")
    job = json.loads((folder / "local/job.json").read_text())
    job["spec"]["placements"] = yaml.safe_load((ROOT / "examples/sums.yaml").read_text())["spec"]["placements"]
    (folder / "local/job.json").write_text(json.dumps(job))
    assert "this machine" in page_of(folder, "--price", "Spot=1").of("cost")


@pytest.mark.parametrize("price", ["Spot", "Spot=", "Spot=much", "=1", "Spot=-1", "Spot=nan"])
def test_a_price_that_is_none_is_refused(tmp_path, price):
    done = ratchet(str(write_run(tmp_path / "run")), "--price", price)
    assert done.exit_code == 2
    assert "write for example Spot=1.20" in done.stderr


def test_a_page_that_is_there_is_left_alone(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert ratchet(str(folder)).exit_code == 0
    assert (tmp_path / "report-two-stages.html").exists()
    done = ratchet(str(folder))
    assert done.exit_code == os.EX_CANTCREAT
    assert "is there already; name another file with -o, or replace it with --force" in done.stderr
    assert ratchet(str(folder), "--force").exit_code == 0
    done = ratchet(str(folder), "-o", str(tmp_path / "no/where.html"))
    assert done.exit_code == 2
    assert "name a file that can be written" in done.stderr
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


def test_where_there_is_no_run_the_command_says_what_would_be_one(tmp_path, monkeypatch):
    (empty := tmp_path / "empty").mkdir()
    done = ratchet(str(empty))
    assert done.exit_code == os.EX_NOINPUT
    assert "no metrics, no ledger, no journal and no samples in it; name the folder of `ratchet train`" in done.stderr
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "examples/minimal.yaml", tmp_path / "job.yaml")
    done = ratchet("job.yaml", PATH="", KUBECONFIG="")
    assert ".ratchet/minimal: no such folder; run `ratchet train job.yaml` here, or apply it" in done.stderr
    done = ratchet("nobody", PATH="", KUBECONFIG="")
    assert done.exit_code == os.EX_UNAVAILABLE
    assert "no file and no folder nobody here, and no cluster is chosen" in done.stderr
    assert list(tmp_path.glob("*.html")) == []


def test_a_job_that_is_gone_is_told_from_its_folder(tmp_path):
    folder = write_run(tmp_path / "run")
    out = tmp_path / "page.html"
    done = ratchet("sums", "--workdir", str(folder), "-o", str(out), PATH="", KUBECONFIG="")
    assert done.exit_code == 0, done.output
    assert "not in it: no cluster is chosen" in done.stderr
    assert "no cluster is chosen" in Page(out.read_text()).of("events")


def test_a_real_job_of_a_real_api_server_is_read_with_its_events(api_server, namespace, tmp_path):
    manifest = yaml.safe_load((ROOT / "examples/minimal.yaml").read_text())
    api_server.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump(manifest))
    record = {"number": 1, "verdict": "Preempted", "evidence": "node <b>n</b> is going away", "notice": "graceful",
              "startTime": "2026-01-01T00:00:00Z", "finalTime": "2026-01-01T00:01:00Z"}  # fmt: skip
    status = {"phase": "Running", "attempts": [record], "counters": {"attempts": 2, "stepsLost": 4},
              "stages": [{"name": "warm-up", "index": 0, "startStep": 0}]}  # fmt: skip
    patch = json.dumps({"status": status})
    api_server.kubectl("patch", "rlj", "minimal", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    uid = api_server.kubectl("get", "rlj", "minimal", "-n", namespace, "-o", "jsonpath={.metadata.uid}")
    about = {"kind": "RLTrainingJob", "name": "minimal", "namespace": namespace, "uid": uid}
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e1", "namespace": namespace}, "count": 3,
             "involvedObject": about, "reason": "Preempted", "message": "attempt 1 was preempted", "type": "Warning",
             "lastTimestamp": "2026-01-01T00:01:00Z"}  # fmt: skip
    api_server.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(event))
    out = tmp_path / "page.html"
    done = ratchet("minimal", "-n", namespace, "-o", str(out), "--bundle", str(tmp_path / "b.zip"), **api_server.env())
    assert done.exit_code == 0, done.output
    page = Page(out.read_text())
    assert "without a claim" in done.stderr or "claim checkpoints" in done.stderr
    assert "attempt 1 was preempted" in page.of("events")
    assert "node <b>n</b> is going away" in page.of("timeline")
    assert "claim checkpoints" in page.of("curves"), "why there are no curves"
    assert "Steps made again: 4" in page.of("recovery")
    assert "Left out" in done.stderr or "left out" in done.stderr


def test_names_of_folders_are_the_trainer_s():
    assert (folder_files.TIMINGS, folder_files.SAMPLES) == (checkpoint.TIMINGS, kept_samples.FOLDER)
