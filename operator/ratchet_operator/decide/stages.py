"""Stages: the operator records that one ended, and only then gives the word for the next.

The trainer decides when a stage is over and says so (`boundary`, over HTTP or in its termination message). Here the
end is written into status first; the word on the leader pod follows from status alone, so it can be given again at
any time. `mayEnter` is a ceiling: an attempt that restarted from an earlier checkpoint passes through without
waiting.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from ratchet_api.job import Spec
from ratchet_api.protocol import ANNOTATION_WORD, WORD_LIMIT
from ratchet_api.status import StagePosition, StageRecord, Status
from ratchet_operator.build.word import word
from ratchet_operator.decide.draft import Draft, revised
from ratchet_operator.plan import Patch, Raw


def begin(draft: Draft, spec: Spec) -> None:
    """Opens the first stage."""
    if not draft.status.stages:
        _enter(draft, spec, 0, 0)


def over(status: Status) -> bool:
    """Whether the last stage is recorded as done: the end is decided, and a stage appended now comes too late."""
    return bool(status.stages) and status.stages[-1].end_step is not None


def absorb(draft: Draft, spec: Spec) -> None:
    """Records every end of a stage that the trainer has reported."""
    for position, restored, boundary in _reports(draft):
        if position is not None:
            _catch_up(draft, spec, position, restored)
        stage = draft.status.stage
        if boundary is None or stage is None or boundary.get("stage") != stage.index or over(draft.status):
            continue  # nothing new: a replay of an end that is recorded, or no end at all
        step = max(int(boundary["step"]), stage.start_step)
        _close(draft, step, boundary.get("rule"))
        if stage.index + 1 < len(spec.stages):
            _enter(draft, spec, stage.index + 1, step)
        else:
            draft.event("Normal", "LastStageDone", f"stage {stage.name} ended at step {step}; the trainer may finish")
        draft.status_first = True


def say_word(draft: Draft, spec: Spec) -> None:
    """Puts the word onto the running leader if it is another than the one there."""
    attempt, status = draft.attempt, draft.status
    if attempt is None or status.stage is None:
        return
    pods = draft.world.own_pods(attempt.number)
    leader = next((p for p in pods if p.is_leader and p.running and p.deletion is None), None)
    if leader is None or leader.jobset_uid != attempt.job_set_uid:
        return
    # The ConfigMap of the attempt holds the stages that had begun before it was made; the first one always had.
    added = [r.index for r in status.stages if r.index and (r.start_time or "") >= (attempt.start_time or "")]
    text = word(draft.world.uid, attempt.number, spec, status.stage.index, over(status), added)
    if len(text.encode()) > WORD_LIMIT:
        # The trainer leaves with 75 after a minute without a word, and the next attempt's ConfigMap holds everything.
        if status.stage != draft.world.status.stage:
            message = f"stage {status.stage.name} begins with another attempt: the word for it is too long"
            draft.event("Normal", "WordTooLong", message)
        return
    if leader.word != text:
        body: Raw = {"metadata": {"annotations": {ANNOTATION_WORD: text}}}
        draft.patch.append(Patch("v1", "Pod", leader.namespace, leader.name, leader.uid, leader.resource_version, body))


def _reports(draft: Draft) -> Iterator[tuple[Raw | None, int | None, Raw | None]]:
    """What the trainer says of stages: (its position, the step it restored, the end of a stage), from HTTP and from
    termination messages."""
    attempt = draft.attempt
    assert attempt is not None
    answer = draft.world.progress_of(attempt.number, attempt.job_set_uid)
    if answer is not None:
        yield answer.get("stage"), answer.get("startStep"), answer.get("boundary")
    for pod in draft.world.own_pods(attempt.number):
        boundary = pod.exit.message.get("boundary") if pod.exit is not None else None
        if (
            isinstance(boundary, dict)
            and isinstance(boundary.get("stage"), int)
            and isinstance(boundary.get("step"), int)
        ):
            yield None, None, boundary


def _catch_up(draft: Draft, spec: Spec, position: Raw, restored: int | None) -> None:
    """After a loss of status the checkpoint knows best which stage the job is in: the one that the attempt began in, or
    one that a word, which still stands on the leader, let it enter. Whoever claims another is not believed: nobody
    steers a run over HTTP. Where stages were passed over, nobody knows when the open one ended, so its record goes.
    """
    stage = draft.status.stage
    index, start = position.get("index"), position.get("startStep")
    if stage is None or index is None or start is None or not stage.index < index < len(spec.stages):
        return
    if (restored is None or restored < max(1, start)) and _told(draft) < index:
        return
    if index == stage.index + 1:
        _close(draft, max(start, stage.start_step), None)
    else:
        draft.revise(stages=[record for record in draft.status.stages if record.end_step is not None])
    _enter(draft, spec, index, start)


def _told(draft: Draft) -> int:
    """The stage that the word on the present attempt's leader lets it enter; -1 without one."""
    assert draft.attempt is not None
    for pod in draft.world.own_pods(draft.attempt.number):
        if pod.is_leader and pod.word:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                return int(json.loads(pod.word)["mayEnter"])
    return -1


def _close(draft: Draft, step: int, rule: str | None) -> None:
    *others, last = draft.status.stages
    closed = revised(last, end_step=step, rule=rule[:256] if rule else None, end_time=draft.world.now)
    draft.revise(stages=[*others, closed])


def _enter(draft: Draft, spec: Spec, index: int, step: int) -> None:
    name = spec.stages[index].name
    record = revised(StageRecord(name=name), index=index, start_step=step, start_time=draft.world.now)
    position = revised(StagePosition(name=name), index=index, start_step=step)
    draft.revise(stages=[*draft.status.stages, record], stage=position)
    before = f"stage {spec.stages[index - 1].name} ended at step {step}; " if index else ""
    draft.event("Normal", "StageBegins", f"{before}stage {name} begins from step {step}")
