"""`/progress`, `/metrics` and `/healthz` over real sockets."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ratchet_trainer.process import metrics, progress
from ratchet_trainer.process.progress import Progress, pages, serve

IDENTITY = SimpleNamespace(uid="uid-1", attempt=3, jobset_uid="jobset-1-with-a-long-uid")
STAGE = {"name": "reason", "index": 1, "startStep": 20}
Get = Callable[..., tuple[int, bytes]]


@pytest.fixture
def shown() -> Progress:
    return Progress(IDENTITY)


@pytest.fixture
def get(shown: Progress) -> Iterator[Get]:
    everything = pages(shown) | {
        "/metrics": lambda query, accept: metrics.exposition(shown, "default", "sums", 0, accept),
    }
    server = serve(everything, "127.0.0.1", port=0)
    opened = []

    def request(path: str, method: str = "GET") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
        opened.append(connection)
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()

    yield request
    for connection in opened:
        connection.close()
    server.shutdown()
    server.server_close()


def document(get: Get, after: str | None = None) -> dict[str, Any]:
    status, body = get("/progress" if after is None else f"/progress?after={after}")
    assert status == 200
    return json.loads(body)


def test_the_document_has_the_keys_of_the_protocol(get: Get, shown: Progress) -> None:
    first = document(get)
    assert {
        *(
            "v",
            "jobUID",
            "attempt",
            "jobSetUID",
            "revision",
            "phase",
            "stage",
            "startStep",
            "step",
            "targetStep",
            "reward",
        ),
        *("accuracy", "tokensPerSecond", "checkpoint", "boundary", "draining", "parts", "lastSafePointAgeSeconds"),
    } <= first.keys()
    assert (first["jobUID"], first["attempt"], first["jobSetUID"]) == ("uid-1", 3, "jobset-1-with-a-long-uid")
    assert first["phase"] == "start"


def test_a_poll_is_held_until_something_is_new(get: Get, shown: Progress) -> None:
    revision = document(get)["revision"]
    answers: list[dict[str, Any]] = []
    poll = threading.Thread(target=lambda: answers.append(document(get, revision)))
    poll.start()
    poll.join(0.2)
    assert poll.is_alive(), "answered although nothing is new"
    shown.update(step=21, stage=STAGE)
    poll.join(20)
    assert answers[0]["step"] == 21
    assert answers[0]["revision"] != revision
    shown.update(step=21)  # nothing new
    assert document(get)["revision"] == answers[0]["revision"]


def test_an_unknown_revision_is_answered_at_once(get: Get) -> None:
    assert document(get, "of-another-attempt")["step"] == 0


def test_polls_that_are_too_many_do_not_pile_up(get: Get, shown: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = document(get)["revision"]
    holders = [
        threading.Thread(target=get, args=(f"/progress?after={revision}",)) for _ in range(progress.HELD_AT_MOST)
    ]
    for holder in holders:
        holder.start()
    while len(shown._changed._waiters) < len(holders):
        time.sleep(0.001)
    assert document(get, revision)["revision"] == revision, "one poll more is answered at once, with nothing new"
    shown.update(step=1)
    for holder in holders:
        holder.join(20)
        assert not holder.is_alive()


def test_nothing_can_be_changed_from_outside(get: Get, shown: Progress) -> None:
    before = shown.document
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert get("/progress", method)[0] == 501
    assert get("/anything")[0] == 404
    assert get("/healthz") == (200, b"ok\n")
    assert shown.document == before


def test_parts_of_a_start_add_up(get: Get, shown: Progress) -> None:
    for phase in ("restore", "compile", "generate", "update"):
        shown.enter(phase)
    parts = shown.first_step_done()
    assert list(parts) == ["start", "restore", "compile", "step"]
    assert all(seconds >= 0 for seconds in parts.values())
    assert shown.first_step_done() is None, "only the first step of an attempt has parts"


def test_metrics_are_in_the_exposition_format_and_named_as_promised(get: Get, shown: Progress) -> None:
    shown.enter("generate")
    shown.update(
        step=21,
        targetStep=420,
        stage=STAGE,
        tokensPerSecond=1234.5,
        checkpoint={"step": 20, "path": "steps/20-a3-jobset-1", "time": "2026-01-01T00:00:00.000+00:00"},
    )
    shown.record = {
        "train/reward": 0.25,
        "train/accuracy": 0.5,
        "train/kl": 0.001,
        "train/clip_fraction": 0.5,
        "train/clip_fraction_low": 0.125,
        "train/clip_fraction_high": 0.375,
    }
    status, body = get("/metrics")
    assert status == 200
    families = {f.name: f for f in text_string_to_metric_families(body.decode())}
    values = {name: f.samples[0].value for name, f in families.items() if f.samples}
    assert values["ratchet_reward_mean"] == 0.25
    assert values["ratchet_accuracy_ratio"] == 0.5
    assert values["ratchet_kl_mean"] == 0.001
    assert {s.labels["side"]: s.value for s in families["ratchet_clip_ratio"].samples} == {"low": 0.125, "high": 0.375}
    assert "ratchet_value_loss" not in values, "there is no critic"
    phases = {s.labels["phase"] for s in families["ratchet_phase_seconds"].samples}
    known = {
        "init",
        "compile",
        "restore",
        "replay",
        "generate",
        "await",
        "verify",
        "update",
        "evaluate",
        "save",
        "wait",
        "drain",
    }
    assert phases <= known | {"other"}
    for family in families.values():
        assert family.documentation, family.name
        for sample in family.samples:
            assert sample.labels["job_name"] == "sums"
            assert sample.labels["job_namespace"] == "default"
