"""What the watches have told of a job: the newest version counts, and what is not all of it is not given out."""

from __future__ import annotations

import pytest
from golden_cases import ALL

from ratchet_operator.decide import decide
from ratchet_operator.known import Known, Told, trim
from ratchet_operator.plan import Delete, Event, Patch, Plan
from ratchet_operator.reconcile import only_words, shows_only

KEY = ("team", "sums")


def job(version=1, uid="job", **more):
    return {"metadata": {"namespace": "team", "name": "sums", "uid": uid, "resourceVersion": str(version)}, **more}


def pod(version, uid="pod", **more):
    labels = {"ratchet.dev/job-name": "sums"}
    meta = {"namespace": "team", "name": uid, "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {"metadata": meta, **more}


@pytest.fixture
def known():
    """A job that is known completely, with one pod at version 10."""
    it = Known()
    it.complete(KEY, it.moment, Told(job(5), [], [pod(10)]))
    return it


def pods(known):
    return {it["metadata"]["uid"]: int(it["metadata"]["resourceVersion"]) for it in known.of(KEY).pods}


def test_a_job_that_was_never_read_whole_is_not_known():
    known = Known()
    known.hear("RLTrainingJob", job())
    known.hear("Pod", pod(2))
    assert known.of(KEY) is None
    known.complete(KEY, known.moment, Told(job(), [], [pod(2)]))
    assert pods(known) == {"pod": 2}


def test_an_older_version_replaces_no_newer_one(known):
    known.hear("Pod", pod(9))
    assert pods(known) == {"pod": 10}
    known.hear("Pod", pod(11))
    assert pods(known) == {"pod": 11}


def test_what_was_deleted_does_not_come_back_with_a_list_from_before(known):
    since = known.moment
    known.hear("Pod", pod(12), gone=True)
    known.complete(KEY, since, Told(job(5), [], [pod(10)]))
    assert pods(known) == {}


def test_what_has_its_label_again_is_known_again(known):
    known.hear("Pod", pod(12), gone=True)
    known.hear("Pod", pod(13))
    assert pods(known) == {"pod": 13}


def test_a_list_takes_away_what_it_lacks_but_not_what_was_heard_of_since_it_was_asked_for(known):
    since = known.moment
    known.hear("Pod", pod(12, "new"))
    known.complete(KEY, since, Told(job(5), [], []))
    assert pods(known) == {"new": 12}


def test_a_job_that_is_gone_or_made_anew_is_read_again(known):
    known.hear("RLTrainingJob", job(20, "another"))
    assert known.of(KEY) is None
    known.complete(KEY, known.moment, Told(job(20, "another"), [], []))
    known.hear("RLTrainingJob", job(21, "another"), gone=True)
    assert known.of(KEY) is None


def test_what_is_not_to_be_trusted_is_not_known(known):
    assert known.versions(KEY) == {("job", "5"), ("pod", "10")}
    known.forget(KEY)
    assert (known.of(KEY), known.versions(KEY)) == (None, frozenset())


@pytest.mark.parametrize("case", sorted(ALL))
def test_a_plan_that_only_shows_something_is_the_same_for_what_was_trimmed(case):
    """And one that acts is seen to act, so that everything is read live."""
    snapshot = ALL[case]().snapshot()
    whole = decide(snapshot)
    trimmed = snapshot.__class__(
        **{
            **snapshot.__dict__,
            "job": trim("RLTrainingJob", snapshot.job),
            "jobsets": [trim("JobSet", it) for it in snapshot.jobsets],
            "pods": [trim("Pod", it) for it in snapshot.pods],
        }
    )
    before = snapshot.job.get("status") or {}
    assert shows_only(before, decide(trimmed)) == shows_only(before, whole)
    if shows_only(before, whole):
        assert decide(trimmed) == whole


STATUS = {"phase": "Placing", "attempt": {"number": 2, "podsReady": 0}, "attempts": [{"number": 1}], "counters": {}}


@pytest.mark.parametrize(
    ("plan", "shows"),
    [
        (Plan(), True),
        (Plan(status={**STATUS, "phase": "Running", "attempt": {"number": 2, "podsReady": 2}}), True),
        (Plan(status={**STATUS, "attempt": {"number": 2, "runningTime": "t"}}), True),
        (Plan(status={**STATUS, "attempts": [{"number": 1, "recovery": {"place": "1"}}]}), True),
        (Plan(status=STATUS, patch=(Patch("v1", "Pod", "team", "p", "u", "1", {}),)), True),
        (Plan(delete=(Delete("v1", "ConfigMap", "team", "sums-a1-job", None),)), True),
        (Plan(status={**STATUS, "attempt": {"number": 3}}), False),
        (Plan(status={**STATUS, "attempt": {"number": 2, "endedTime": "t"}}), False),
        (Plan(status={**STATUS, "attempts": [{"number": 1, "finalTime": "t"}]}), False),
        (Plan(status={**STATUS, "counters": {"failures": 1}}), False),
        (Plan(status={**STATUS, "finishedTime": "t"}), False),
        (Plan(status={**STATUS, "stage": {"index": 1}}), False),
        (Plan(status=STATUS, status_first=True), False),
        (Plan(create=({"kind": "JobSet"},)), False),
        (Plan(delete=(Delete("v1", "Pod", "team", "p", "u"),)), False),
    ],
)  # fmt: skip
def test_only_what_authorizes_nothing_may_rest_on_the_watches(plan, shows):
    assert shows_only(STATUS, plan) is shows


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan(status={**STATUS, "conditions": [{"type": "Placed"}]}), True),
        (Plan(), False),
        (Plan(status={**STATUS, "conditions": [], "phase": "Running"}), False),
        (Plan(status={**STATUS, "conditions": []}, events=(Event("Normal", "Queued", "waits"),)), False),
        (Plan(status={**STATUS, "conditions": []}, status_first=True), False),
    ],
)
def test_only_words_that_change_alone_can_wait(plan, words):
    assert only_words(STATUS, plan) is words
