"""Every way in which an attempt can end, what it is called, and which budget pays."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from plan_story import Story
from ways_to_end import ABOUT, TABLE, ready

from ratchet_operator.decide import verdict as verdicts
from ratchet_operator.decide.observed_pod import Pod
from ratchet_operator.decide.verdict import Verdict


@pytest.mark.parametrize(("happening", "verdict", "charged", "notice"), TABLE, ids=[row[0].__name__ for row in TABLE])
def test_verdict(happening, verdict, charged, notice):
    story = Story().begin()
    happening(story)
    story.decide()
    record = story.record(1)
    assert (record["verdict"], record["chargedTo"], record["notice"]) == (verdict, charged, notice), record
    counted = {name: story.counters[name] for name in ("preemptions", "failures")}
    assert counted == {"preemptions": 0, "failures": 0} | ({charged: 1} if charged != "nothing" else {})
    assert ABOUT.get(happening.__name__, "pod sums-a1-s-0-1") in record["evidence"]


def test_every_verdict_has_a_charge():
    assert set(verdicts.TABLE) == set(Verdict)


def test_every_verdict_is_reached():
    own_tests = {"Completed", "Unschedulable", "WorkersFailed"}  # the last in test_rollouts
    reached = {row[1] for row in TABLE} | own_tests
    assert reached == set(Verdict)


def test_verdicts_are_given_from_evidence_only():
    """A Sign carries the verdict; it is made where evidence is read and nowhere else."""
    folder = Path(verdicts.__file__).parent
    making = {path.name for path in folder.glob("*.py") if re.search(r"\bSign\(", path.read_text(encoding="utf-8"))}
    assert making == {"end_signs.py", "own_end.py", "hang.py", "worker_end.py", "rollouts.py"}


def test_a_verdict_of_a_newer_operator_is_left_as_it_is():
    """After a downgrade: what an unknown word stands for is not known here, so it is neither changed nor charged."""
    story = Story().begin()
    story.leave(story.pod(0), 69)
    story.settle()
    story.record(1)["verdict"] = story.attempt["verdict"] = "EatenByMoths"
    story.nodes["pool-a-1"] = None
    story.settle()
    assert story.record(1)["verdict"] == "EatenByMoths"
    assert story.counters["preemptions"] == 0
    assert story.attempt["number"] == 2


def test_signal_numbers_count_as_exit_codes():
    story = Story().begin()
    story.leave(story.pod(1), 0)
    story.pod(1)["status"]["phase"] = "Failed"
    story.pod(1)["status"]["containerStatuses"][0]["state"]["terminated"]["signal"] = 6
    story.decide()
    assert story.record(1)["verdict"] == "PeerLost"


@pytest.mark.parametrize(
    ("phase", "age", "deadline", "ends"),
    [
        ("generate", 2699.0, 1800, False),
        ("generate", 180.0, 120, True),
        ("compile", 2700.0, 1800, False),
        ("compile", 5400.0, 1800, True),
        ("restore", 5400.0, 7200, False),
        ("update", None, 120, False),
    ],
)
def test_who_shows_no_sign_of_life_is_ended_at_one_and_a_half_times_the_deadline(phase, age, deadline, ends):
    story = Story(restart={"progressDeadlineSeconds": deadline}).begin()
    story.report(step=3, phase=phase, lastSafePointAgeSeconds=age)
    story.decide()
    assert (story.attempt.get("verdict") == "Hung") is ends
    if ends:
        assert f"{age:.0f} s in phase {phase}" in story.record(1)["evidence"]


def test_nothing_ends_a_healthy_attempt():
    """A NotReady blip and a node that cannot be read are no evidence."""
    story = Story().begin()
    ready(story, "pool-a-1", "Unknown")
    assert not story.settle()
    del story.nodes["pool-a-1"]
    assert not story.settle()


def test_the_end_that_the_operator_itself_causes_is_no_evidence():
    """Pods killed after the first sign leave with 137 and 143; they do not change the verdict."""
    story = Story().begin()
    story.leave(story.pod(0), 69)
    story.settle()
    assert story.pod(1)["metadata"]["deletionGracePeriodSeconds"] == 2
    story.leave(story.pod(1), 137)
    story.settle()
    assert story.record(1)["verdict"] == "PeerLost"


def test_evidence_names_pod_node_and_code():
    story = Story().begin()
    story.leave(story.pod(1), 70, message="ZeroDivisionError: division by zero")
    story.decide()
    assert story.record(1)["evidence"] == (
        "pod sums-a1-s-0-1 on node pool-a-1 left with exit code 70: ZeroDivisionError: division by zero"
    )


GOOD = {"v": 1, "reason": "Drained", "message": "told to go", "step": 7, "owner": {"jobUID": "u", "attempt": 3}}


def _said(text: str) -> dict:
    ended = {"exitCode": 75, "message": text}
    end = Pod({"status": {"containerStatuses": [{"name": "trainer", "state": {"terminated": ended}}]}}).exit
    assert end is not None
    return {name: value for name, value in end.message.plain().items() if name != "v" and value is not None}


@pytest.mark.parametrize("v", [1, 0])
def test_a_termination_message_of_the_protocol_is_kept(v):
    good = {**GOOD, "v": v, "boundary": {"stage": 0, "step": 7, "rule": "steps", "needsApproval": True}}
    said = {name: value for name, value in good.items() if name != "v"}
    assert _said(json.dumps({**good, "more": 1})) == said


@pytest.mark.parametrize(
    "field",
    [
        {"step": 10**20}, {"step": True}, {"step": -1}, {"step": "7"}, {"reason": 5}, {"message": ["x"]},
        {"message": "\ud800"}, {"owner": {"jobUID": "u", "attempt": 10**30}},
        {"owner": {"jobUID": "u", "attempt": True}},
        {"owner": {"attempt": 3}}, {"owner": 5}, {"boundary": {"stage": 0, "step": 7, "rule": 5}},
        {"boundary": {"stage": 0, "step": 10**20, "rule": "steps"}},
        {"boundary": {"stage": True, "step": 7, "rule": "r"}},
    ],
)  # fmt: skip
def test_a_field_that_is_no_such_thing_is_dropped(field):
    (name,) = field
    kept = {key: value for key, value in GOOD.items() if key not in ("v", name)}
    assert _said(json.dumps({**GOOD, **field})) == kept
    story = Story().begin()
    story.leave(story.pod(0), 75, **{**GOOD, **field}).leave(story.pod(1), 75)
    story.settle()
    assert story.record(1)["verdict"] == "Drained"


@pytest.mark.parametrize("v", [2, -1, True, "1", None, 10**30])
def test_a_termination_message_of_another_version_is_dropped(v):
    assert _said(json.dumps({**GOOD, "v": v})) == {}


@pytest.mark.parametrize("text", ["", "[]", "nul", "[" * 3000, '{"v": 1, "step": ' + "9" * 4000])
def test_a_termination_message_that_is_no_object_is_dropped(text):
    assert _said(text) == {}
