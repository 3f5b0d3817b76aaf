"""Whether the expected answers of a stage can earn their reward, found before its first step.

Decides which items are tried and what is said of those that fail, once every verifier is known to start. Each expected
answer goes the whole way of a response that gives it: encoded, cut at the limit, ended by an end token or a stop
string, decoded, extracted, verified. A data set of which none gets accuracy 1 is refused; of others the failing ones
are named.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.outcome import Case, Finish, Outcome
from ratchet_trainer.algorithm.verifiers import registry
from ratchet_trainer.algorithm.verifiers.spec import VerifierSpec
from ratchet_trainer.data.items import Source, where
from ratchet_trainer.data.mixture import Mixture
from ratchet_trainer.data.prompt import Prompt
from ratchet_trainer.data.tokenizer import Tokenizer
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.rollout.endings import Endings, Stops
from ratchet_trainer.rollout.verification import Judges, Verification

if TYPE_CHECKING:
    from ratchet_trainer.step.stage import Stage

log = logging.getLogger(__name__)

LOOKED_AT = 64
"""Items of a data set that are tried, the first."""
NAMED = 5
"""Failing items that are named."""
SHOWN = 80
"""Characters of an answer that are shown."""

Verify = Callable[[Sequence[Case]], Sequence[Outcome]]


@dataclass(frozen=True)
class Ending:
    """What ends responses of a stage: its limit of tokens and its stop strings, beside the model's end tokens."""

    limit: int
    stop: Sequence[str] = ()


@dataclass(frozen=True)
class Trial:
    """A response that gives an expected answer, as far as the stage's limits let it come. `tokens`: of the whole answer
    with its end; `used`: those that the response has; `wanted`: its text were there no limits."""

    item: int
    case: Case
    tokens: int
    used: int
    wanted: str


@dataclass(frozen=True)
class Fault:
    """An item whose expected answer earns nothing: a row of FAULTS, and why in words. `needs`: tokens that would do."""

    item: int
    kind: str
    why: str
    needs: int = 0


FAULTS: Mapping[str, Callable[[VerifierSpec, Ending, Sequence[Fault]], str]] = {
    # kind -> the way out
    "limit": lambda spec, ending, faults: (
        f"raise maxResponseTokens, which is {ending.limit}, to {max(f.needs for f in faults)} or more: a response that "
        "reasons needs far more than the answer"
    ),
    "stop": lambda spec, ending, faults: (
        f"take the string out of rl.sampling.stop, which has {', '.join(map(repr, ending.stop))}"
    ),
    "end": lambda spec, ending, faults: "take the end token's text out of the answers, or take another model",
    "verifier": lambda spec, ending, faults: (
        f"verifier {spec.name} with answer.extract {spec.extraction.kind} does not take its own expected answers; give "
        "the data set an answer.extract or a verifier that fits them, or mend them"
    ),
}


def of_stage(stage: Stage) -> str:
    """What is wrong with the expected answers of an rl stage that is about to begin; "" if nothing is. For process 0,
    which has the data. Raises ConfigurationInvalid as `doubts` does, and for a verifier that cannot be had."""
    source = stage.source
    assert source is not None, "process 0 has it"
    sources = source.sources if isinstance(source, Mixture) else (source,)
    return of_sources(
        dict(enumerate(sources)),
        stage.judges,
        stage.engine.verification,
        stage.programs.tokenizer,
        stage.rl,
        stage.group.alive,
    )


def of_sources(
    sources: Mapping[int, Source],
    judges: Judges,
    verification: Verification,
    tokenizer: Tokenizer,
    rl: Rl,
    alive: Callable[[], None],
) -> str:
    """As `of_stage`, of the data sets at these places of a stage."""
    verification.ready(alive)
    ending = Ending(rl.max_response_tokens, rl.sampling.stop)
    said = []
    for place, source in sources.items():
        verify = partial(verification.tried, place=place, alive=alive)
        if found := doubts(source, judges.verifiers[place], verify, tokenizer, ending):
            log.warning("%s", found)
            said.append(found)
    return "; ".join(said)


def doubts(source: Source, spec: VerifierSpec, verify: Verify, tokenizer: Tokenizer, ending: Ending) -> str | None:
    """What is said of the expected answers of a data set that cannot be earned; None if all of the first ones can, or
    nobody can know.

    Raises ConfigurationInvalid if none of those that were tried can be earned."""
    trials = _trials(source, spec, tokenizer, ending) if spec.pure else []
    if not trials:
        log.info("data set %s: verifier %s is not asked beforehand about expected answers", source.name, spec.name)
        return None
    outcomes = verify([trial.case for trial in trials])
    faults = [
        _fault(trial, outcome, ending)
        for trial, outcome in zip(trials, outcomes, strict=True)
        if outcome.accuracy != 1.0 and outcome.status not in ("timeout", "crash")
    ]
    failed = sum(outcome.status in ("timeout", "crash") for outcome in outcomes)
    if failed:
        log.warning("data set %s: verifier %s failed on %d of %d", source.name, spec.name, failed, len(trials))
    if not faults:
        return None
    said = _said(source, spec, ending, faults, len(trials))
    if len(faults) == len(trials):
        raise ConfigurationInvalid(said)
    return said


def _trials(source: Source, spec: VerifierSpec, tokenizer: Tokenizer, ending: Ending) -> list[Trial]:
    """The first items' expected answers as responses. Empty where no response is known that would be right."""
    stops = Stops(tokenizer, ending.stop) if ending.stop else None
    found = []
    for index in range(min(source.size, LOOKED_AT)):
        item = source.item(index)
        text = registry.expected_response(spec, item.answer)
        if text is None:
            return []
        tokens = tokenizer.encode_answer(text)
        endings = Endings(tokenizer.ends, np.array([[ending.limit]]), stops)
        endings.see(np.array([[tokens]], np.int32))
        used = int(endings.lengths[0, 0])
        finish: Finish = str(endings.finish[0, 0])  # type: ignore[assignment]  # `Endings` writes no other
        prompt = Prompt((), item.answer, item.question, item.fields)
        case = Case(prompt.item(index), item.question, tokenizer.decode(tokens[:used]), finish)
        found.append(Trial(index, case, len(tokens), used, text))
    return found


def _fault(trial: Trial, outcome: Outcome, ending: Ending) -> Fault:
    case = trial.case
    if case.finish == "length":
        why = f"its {trial.tokens} tokens do not fit maxResponseTokens {ending.limit}"
        return Fault(trial.item, "limit", why, trial.tokens)
    if case.finish == "stop":
        return Fault(trial.item, "stop", f"a stop string ends it after {trial.used} of {trial.tokens} tokens")
    if trial.used < trial.tokens:
        why = f"it holds an end token, so it is over after {trial.used} of {trial.tokens} tokens"
        return Fault(trial.item, "end", why)
    if outcome.extracted is None:
        why = f"the verifier finds no answer in {_short(case.response)}"
    elif not str(case.item["answer"]).strip():
        why = "it is empty, and saying nothing earns nothing"
    else:
        why = f"the verifier says no: it extracts {_short(outcome.extracted)}"
    return Fault(trial.item, "verifier", why)


def _said(source: Source, spec: VerifierSpec, ending: Ending, faults: Sequence[Fault], tried: int) -> str:
    of = f"all of the first {tried}" if len(faults) == tried else f"{len(faults)} of the first {tried}"
    named = "; ".join(
        f"{where(source, fault.item)}: {_short(source.item(fault.item).answer)}: {fault.why}"
        for fault in faults[:NAMED]
    )
    more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
    ways = [
        way(spec, ending, of_kind)
        for kind, way in FAULTS.items()
        if (of_kind := [fault for fault in faults if fault.kind == kind])
    ]
    return (
        f"data set {source.name}: {of} expected answers cannot earn accuracy 1: {named}{more}. "
        f"{_capitalized('; '.join(ways))}"
    )


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _short(text: Any) -> str:
    text = str(text)
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 3] + "...")
