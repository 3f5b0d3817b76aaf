"""Whether a stage learns, and if not, why: the condition Learning, from the metrics of its latest steps.

Decides the signs, their bounds and their words. A sign is a function of committed metrics (`StageState.windows` keeps
what it looks at), so a restart says the same; the answers that are quoted are those of the step just made.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ratchet_api.protocol.documents import Learning

if TYPE_CHECKING:
    from ratchet_trainer.algorithm.types import StepSamples

WINDOWS = {
    # metric -> how many of its latest values the signs look at
    "train/informative": 3,
    "train/solved": 3,
    "train/accuracy": 3,
    "train/truncated": 3,
    "train/verifier_failures": 3,
    "train/entropy": 10,
    "train/logprob_mismatch": 3,
    "train/reward": 40,
}
MISMATCH = 0.05
"""Mean |log-probability of the sampler - of the trainer| a token, in nats."""
MOSTLY_CUT = 0.8
"""Share of cut responses from which the limit is the likely reason for rewards that teach nothing."""
COLLAPSED = 0.005
"""Entropy in nats a token."""


NOT_APPLICABLE = Learning.because("NotApplicable", "a supervised stage has no rewards to learn from")
NOTHING_MOVES = Learning.because("NotApplicable", "a curate stage moves no weight")

Windows = Mapping[str, Sequence[float]]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _no_informative_groups(w: Windows) -> str | None:
    values = w["train/informative"]
    if max(values) > 0:
        return None
    cut = _mean(w["train/truncated"])
    if cut >= MOSTLY_CUT and _mean(w["train/accuracy"]) < 0.5:  # then that is why
        return None
    also = f" ({cut:.0%} of them are cut at maxResponseTokens)" if cut >= 0.5 else ""
    text = f"in {len(values)} steps in a row all responses to a prompt earned the same{also}, so nothing was learned"
    failing = _mean(w["train/verifier_failures"])
    return f"{text}; the verifier gave no outcome for {failing:.0%} of the responses" if failing > 0 else text


def _all_the_same(w: Windows) -> str | None:
    """As `_no_informative_groups`, where values teach: a response differs from what was expected, not from others to
    its prompt."""
    steps = len(w["train/informative"])
    return _no_informative_groups(w) if len(set(w["train/reward"][-steps:])) == 1 else None


def _all_solved(w: Windows) -> str | None:
    if _mean(w["train/solved"]) < 0.98 or _mean(w["train/informative"]) > 0.1:  # form or length may teach on
        return None
    return "nearly every prompt is answered right every time; take harder data, or end the stage"


def _truncated(w: Windows) -> str | None:
    share = _mean(w["train/truncated"])
    if share < 0.5 or _mean(w["train/accuracy"]) >= 0.5:
        return None
    return f"{share:.0%} of the responses are cut at maxResponseTokens; raise it, or ask for shorter answers"


def _collapsed(w: Windows) -> str | None:
    if _mean(w["train/entropy"]) >= COLLAPSED or _mean(w["train/accuracy"]) >= 0.95:
        return None
    return (
        f"the policy's entropy is {_mean(w['train/entropy']):.4f} nats a token: it says the same each time; lower the "
        "learning rate, raise clipHigh, or add objective.entropy"
    )


def _mismatch(w: Windows) -> str | None:
    gap = _mean([v for v in w["train/logprob_mismatch"] if not math.isnan(v)])
    if not gap > MISMATCH:
        return None
    return (
        f"sampler and trainer disagree by {gap:.3f} nats a token on the same weights; set objective.importanceCap, or "
        "model.dtype: float32"
    )


def _falling(w: Windows) -> str | None:
    values = list(w["train/reward"])
    if len(values) < WINDOWS["train/reward"]:
        return None
    first, last = values[:10], values[-10:]
    deviation = math.sqrt(sum((v - _mean(first)) ** 2 for v in first) / 9)
    if _mean(last) >= _mean(first) - max(0.05, 2 * deviation):
        return None
    return f"the mean reward fell from {_mean(first):.3f} to {_mean(last):.3f} in {len(values)} steps; lower the rate"


SIGNS: Mapping[str, tuple[Callable[[Windows], str | None], tuple[str, ...]]] = {
    # reason -> what tells it, and the metrics whose windows must be full; the first that holds is said
    "SamplerTrainerMismatch": (_mismatch, ("train/logprob_mismatch",)),
    "AllSolved": (_all_solved, ("train/solved", "train/informative")),
    "NoInformativeGroups": (_no_informative_groups, ("train/informative", "train/truncated", "train/accuracy")),
    "ResponsesTruncated": (_truncated, ("train/truncated", "train/accuracy")),
    "EntropyCollapsed": (_collapsed, ("train/entropy", "train/accuracy")),
    "RewardFalling": (_falling, ("train/reward",)),
}
FROM_VALUES = ("gae", "vine")
"""Estimators whose advantages come from values: with them prompts teach whose responses all earn the same."""
SIGNS_WITH_VALUES = {**SIGNS, "NoInformativeGroups": (_all_the_same, SIGNS["NoInformativeGroups"][1])}
"""The signs of stages with these."""
QUOTED = ("NoInformativeGroups", "ResponsesTruncated")
"""Reasons whose message quotes answers."""


def learning(
    windows: Mapping[str, Sequence[str]],
    samples: StepSamples | None,
    decoded: Callable[..., str],
    doubts: str = "",
    estimator: str = "mean-std",
) -> Learning:
    """The condition from the windows of a stage's metrics (float.hex()). `samples`: of the step just made, None right
    after a restart; `decoded`: a response's tokens as text; `doubts`: what the preflight said, which is repeated while
    nothing better is known; `estimator`: that of the stage's advantages."""
    from_values = estimator in FROM_VALUES
    # A rule may have longer windows kept than the signs look at.
    values = {name: [float.fromhex(v) for v in windows.get(name, ())[-size:]] for name, size in WINDOWS.items()}
    full = {name for name, size in WINDOWS.items() if len(values[name]) >= size}
    for reason, (sign, needed) in (SIGNS_WITH_VALUES if from_values else SIGNS).items():
        if full.issuperset(needed) and (text := sign(values)) is not None:
            quoted = f"; {quote(samples, decoded)}" if samples is not None and reason in QUOTED else ""
            return Learning.because(reason, text + quoted)
    if not full.issuperset(("train/informative", "train/accuracy")):
        text = "too few steps of this stage are made to tell"
        return Learning.because("NotYetKnown", f"{text}; {doubts}" if doubts else text)
    if from_values:
        return Learning.because("Learning", f"{_mean(values['train/accuracy']):.0%} of the responses are right")
    return Learning.because("Learning", f"{_mean(values['train/informative']):.0%} of the groups teach something")


def quote(samples: StepSamples, decoded: Callable[..., str]) -> str:
    """The commonest expected and the commonest given answer of a step, and how a response ended."""
    rollouts = [r for group in samples.groups for r in group.rollouts]
    wrong = [r for r in rollouts if r.outcome.accuracy == 0.0] or rollouts
    expected = Counter(r.prompt.answer for r in wrong).most_common(1)[0][0]
    given = [r for r in wrong if r.prompt.answer == expected]
    shown = Counter(_short(r.outcome.extracted) if r.outcome.extracted else _short(decoded(r.response)) for r in given)
    ends = Counter(r.finish for r in wrong).most_common(1)[0][0]
    return (
        f"for example, {_short(given[0].prompt.question)!r} expects {_short(expected)!r} and was answered "
        f"{shown.most_common(1)[0][0]!r} (ended by {ENDS[ends]})"
    )


ENDS = {"end": "its end token", "stop": "a stop string", "length": "the length limit"}


def _short(text: str, most: int = 160) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 3] + "..."
