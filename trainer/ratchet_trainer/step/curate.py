"""A step of a curate stage, and what the last one leaves: a data set of the items that are worth training on.

Decides what is counted and which items are kept. The state has the number of right responses to each candidate; no
weight moves. The files are functions of state and data: a process that is killed between writing them and the commit
of the stage's end writes the same again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from ratchet_api.curation import Curate, Keep
from ratchet_trainer.algorithm.group_outcomes import right_responses, unanswered
from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.outcome import Case
from ratchet_trainer.algorithm.slots import SlotState
from ratchet_trainer.algorithm.types import Draw, Group, Request, grouped
from ratchet_trainer.algorithm.verifiers.registry import expected_response
from ratchet_trainer.data import curated_file
from ratchet_trainer.data.candidates import Candidates
from ratchet_trainer.errors import StageFailed, StorageUnavailable
from ratchet_trainer.step.make_hints import hints_of, none_made
from ratchet_trainer.step.state import State
from ratchet_trainer.storage import Location

if TYPE_CHECKING:
    from ratchet_trainer.process.runtime import Runtime
    from ratchet_trainer.step.stage import Stage

log = logging.getLogger(__name__)

V = 1
UNASKED, FAILED, REFUSED = -1, -2, -3
"""In the place of a number of right responses: not asked yet, no outcome for any response, and an expected answer that
its own verifier does not take."""
DONE = "curated"
"""The rule that ended the stage."""
SETTINGS = {
    # count of the report -> the setting by which fewer are left out
    "contradictory": "contradictions: Keep",
    "duplicates": "deduplicate: none",
    "tooLong": "a larger maxPromptTokens",
    "refused": "refused: Keep, or mended answers",
    "failed": "a verifier that answers",
    "tooHard": "a lower keep.low, more samples, or training before",
    "tooEasy": "a higher keep.high",
}


def beginning(size: int) -> SlotState:
    """The state before the first step; `size`: candidates."""
    return SlotState({"position": 0}, {"right": np.full(size, UNASKED, np.int16)})


def over(state: State) -> bool:
    """Whether every candidate is answered."""
    position: int = state.selection.plain["position"]
    return position >= len(state.selection.arrays["right"])


def step(stage: Stage, state: State) -> tuple[State, dict[str, float], dict[str, Any]]:
    """Answers the next candidates: the state after the step, its metrics and timing. *Collective.* Raises Drain, and
    what verifiers raise."""
    settings, at = stage.curate, state.selection.plain["position"]
    items = range(at, min(at + settings.prompts_per_step, stage.facts.size))
    requests = [
        Request(Draw(state.next_ordinal + i, item), Purpose.CURATE, settings.samples) for i, item in enumerate(items)
    ]
    made = stage.engine.tokens
    groups = grouped(requests, stage.engine.sample(requests, state.params, state.step))
    taken = expected_answers_taken(stage, groups) if settings.refused == "LeaveOut" else [True] * len(groups)
    right = state.selection.arrays["right"].copy()
    right[at : at + len(items)] = [
        (FAILED if unanswered(group) else right_responses(group)) if ok else REFUSED
        for group, ok in zip(groups, taken, strict=True)
    ]
    state = replace(
        state,
        step=state.step + 1,
        next_ordinal=state.next_ordinal + len(items),
        selection=SlotState({"position": at + len(items)}, {"right": right}),
    )
    timing = {"trainedTokens": 0, "generatedTokens": stage.engine.tokens - made, "skippedUpdates": 0}
    return state, metrics_of(groups), timing


def metrics_of(groups: Sequence[Group]) -> dict[str, float]:
    """What a step reports: means over its responses, left to right, float64."""
    rollouts = [r for g in groups for r in g.rollouts]

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    return {
        "curate/accuracy": mean([r.outcome.accuracy for r in rollouts]),
        "curate/truncated": mean([float(r.finish == "length") for r in rollouts]),
        "curate/verifier_failures": mean([float(r.outcome.status in ("timeout", "crash")) for r in rollouts]),
        "curate/response_tokens": mean([float(len(r.response)) for r in rollouts]),
    }


def expected_answers_taken(stage: Stage, groups: Sequence[Group]) -> list[bool]:
    """Whether the verifier takes each item's own expected answer for right; True where it cannot be asked, or did not
    answer. *Collective.*"""
    (spec,) = stage.judges.verifiers
    texts = [expected_response(spec, g.rollouts[0].prompt.answer) if spec.pure else None for g in groups]
    asked = [(g, text) for g, text in zip(groups, texts, strict=True) if text is not None]
    cases = [
        Case(g.rollouts[0].prompt.item(g.draw.item), g.rollouts[0].prompt.question, text, "end") for g, text in asked
    ]
    outcomes = stage.engine.verification.of(cases, [g.draw.ordinal for g, _ in asked], [0] * len(asked), stage.group)
    refused = {
        g.draw.ordinal
        for (g, _), outcome in zip(asked, outcomes, strict=True)
        if outcome.accuracy != 1.0 and outcome.status not in ("timeout", "crash")
    }
    return [g.draw.ordinal not in refused for g in groups]


# What is left of all


@dataclass(frozen=True)
class Choice:
    """Which candidates are kept (their places), and the counts of the report: every item is in exactly one of them."""

    kept: list[int]
    counts: Mapping[str, int]


def chosen(right: np.ndarray, samples: int, keep: Keep, left_out: Mapping[str, int]) -> Choice:
    """Of candidates with `right` int16[n] right ones of so many responses each; bounds are compared exactly."""
    counts = {**left_out, "refused": 0, "failed": 0, "tooHard": 0, "tooEasy": 0, "kept": 0}
    good = []
    for number, items in zip(*(found.tolist() for found in np.unique(right, return_counts=True)), strict=True):
        fate = _fate(number, samples, keep)
        counts[fate] += items
        if fate == "kept":
            good.append(number)
    return Choice(np.flatnonzero(np.isin(right, good)).tolist(), counts)


def _fate(right: int, samples: int, keep: Keep) -> str:
    if right < 0:
        return {FAILED: "failed", REFUSED: "refused"}[right]
    share = Fraction(right, samples)
    if right == 0 if keep.low is None else share < Fraction(keep.low):
        return "tooHard"
    if right == samples if keep.high is None else share > Fraction(keep.high):
        return "tooEasy"
    return "kept"


def finished(stage: Stage, runtime: Runtime, state: State) -> State:
    """The state once its data set is written. *Collective.* Raises StageFailed where nothing is kept, and
    StorageUnavailable."""
    digest, failed, storage = None, "", ""
    if runtime.process == 0:
        try:
            digest = _write(stage, state)
        except StageFailed as error:
            failed = str(error)
        except StorageUnavailable as error:
            storage = str(error)
    digest, failed, storage = runtime.broadcast([digest, failed, storage])
    if failed:
        raise StageFailed(failed)
    if storage:
        raise StorageUnavailable(storage)
    return replace(state, curated={**state.curated, stage.spec.name: digest})


def _write(stage: Stage, state: State) -> str:
    """The digest of the file of kept items."""
    settings, source, right = stage.curate, stage.source, state.selection.arrays["right"]
    assert isinstance(source, Candidates), "process 0 has them"
    choice = chosen(right, settings.samples, settings.keep, source.left_out)
    numbers = [int(source.numbers[place]) for place in choice.kept]
    rates = [int(right[place]) / settings.samples for place in choice.kept]
    make = None if (how := settings.hints) is None else lambda item: hints_of(item.fields, how)
    items = curated_file.lines_of(source.origin, numbers, rates, make)
    digest = hashlib.sha256(items).hexdigest()
    folder = curated_file.folder_of(Location.parse(stage.job.checkpoint.directory), stage.spec.name)
    curated_file.write(folder, items, report(stage, state, choice, digest, source))
    log.info("stage %s: %s", stage.spec.name, said(choice.counts, source.of))
    if not choice.kept:
        raise StageFailed(nothing_left(stage.spec.name, settings, choice.counts, source.of, folder))
    if how is not None and not any(hints_of(source.origin.item(number).fields, how) for number in numbers):
        raise StageFailed(
            none_made(f"stage {stage.spec.name}: no kept item", how.from_, source.origin.item(numbers[0]))
        )
    return digest


def report(stage: Stage, state: State, choice: Choice, digest: str, source: Candidates) -> dict[str, Any]:
    """What is to be known of the data set: where it comes from, what was left out and why, and how many items had how
    many right responses."""
    settings, right = stage.curate, state.selection.arrays["right"]
    answered = right[right >= 0]
    return {
        "v": V,
        "stage": stage.spec.name,
        "dataset": settings.dataset,
        "datasetDigest": source.origin.digest,
        "weightsOfStep": state.stage.start_step,
        "samples": settings.samples,
        "items": source.of,
        **choice.counts,
        "byRightResponses": np.bincount(answered, minlength=settings.samples + 1).tolist(),
        "itemsSha256": digest,
    }


def said(counts: Mapping[str, int], items: int) -> str:
    """The counts in words."""
    others = ", ".join(f"{n} {name}" for name, n in counts.items() if n and name != "kept")
    return f"{counts['kept']} of {items} items are kept" + (f" ({others})" if others else "")


def nothing_left(stage: str, settings: Curate, counts: Mapping[str, int], items: int, folder: Location) -> str:
    """Why there is no data set, and the ways out, the one that helps most first."""
    by_size = sorted((name for name in SETTINGS if counts[name]), key=lambda name: -counts[name])
    ways = "; ".join(f"for {name}, {SETTINGS[name]}" for name in by_size[:2])
    return (
        f"stage {stage}: nothing of data set {settings.dataset} is left: {said(counts, items)}. Ways out, in "
        f"another job as this stage has begun: {ways}. The report is in {folder}"
    )
