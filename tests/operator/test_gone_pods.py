"""What a pod said last is not lost with it."""

from __future__ import annotations

from typing import Any

from ratchet_operator import gone_pods
from ratchet_operator.gone_pods import GonePods

KEY = ("team", "sums")


def pod(uid: str, phase: str = "Failed") -> dict[str, Any]:
    owner = {"kind": "Job", "controller": True, "name": "sums-a1-s-0", "uid": "job"}
    meta = {"namespace": "team", "name": uid, "uid": uid, "ownerReferences": [owner]}
    return {"metadata": meta, "status": {"phase": phase}}


def uids(pods: list[dict[str, Any]]) -> list[str]:
    return [it["metadata"]["uid"] for it in pods]


def test_pods_that_had_ended_are_kept_and_those_that_had_not_are_not() -> None:
    gone = GonePods()
    gone.hear("sums", pod("a"))
    gone.hear("sums", pod("b", "Running"))
    foreign = pod("c")
    del foreign["metadata"]["ownerReferences"]
    gone.hear("sums", foreign)
    assert uids(gone.beside(KEY, [])) == ["a"], "neither what had not ended nor what no Job made"
    assert gone.beside(KEY, [])[0]["gone"] is True
    assert uids(gone.beside(KEY, [pod("a"), pod("d")])) == ["a", "d"], "what is listed is not said twice"
    assert gone.beside(("team", "other"), []) == []
    gone.forget(KEY)
    assert gone.beside(KEY, []) == []


def test_they_are_kept_for_a_while_also_where_nobody_asks(monkeypatch) -> None:
    gone = GonePods()
    gone.hear("sums", pod("a"))
    gone.hear("other", pod("b"))
    clock = gone_pods.time.monotonic() + gone_pods.KEPT_SECONDS + 1
    monkeypatch.setattr(gone_pods.time, "monotonic", lambda: clock)
    gone.hear("sums", pod("c"))
    assert gone._pods.keys() == {KEY}
    assert uids(gone.beside(KEY, [])) == ["c"]
