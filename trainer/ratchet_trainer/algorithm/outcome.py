"""What a verifier gets and what it says: the words between the engine, the verifiers and the rewards.

Decides no behavior. A `Case` is texts only, so that a verifier can run in another process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Finish = Literal["end", "stop", "length"]
Status = Literal["ok", "timeout", "crash", "unparsable"]


@dataclass(frozen=True)
class Case:
    """One response to be verified.

    `item` holds at least `question`, `answer` (the expected one) and `index`, and whatever else the item has. `prompt`
    is the text that was sampled from, `response` the text without its end. `finish` says why the response ended.
    """

    item: Mapping[str, Any]
    prompt: str
    response: str
    finish: Finish


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    `accuracy` is 1.0 or 0.0: [score >= threshold]; `score` is 0 to 1, or what the user's own verifier says. `extracted`
    is the part of the response that was compared, None where there was none. `parts` are further named numbers.
    `status` is `ok` for right and wrong answers alike; `unparsable` where no answer was found, or one that cannot be
    read; `timeout` and `crash` where the verifier gave none. `pure`: the same case always gets the same; what is not
    pure goes to the outcome journal.
    """

    accuracy: float
    score: float
    extracted: str | None = None
    parts: dict[str, float] = field(default_factory=dict)
    status: Status = "ok"
    pure: bool = True


def graded(score: float, extracted: str | None, *, threshold: float = 1.0, pure: bool = True) -> Outcome:
    """The ordinary outcome of a score."""
    return Outcome(accuracy=float(score >= threshold), score=score, extracted=extracted, pure=pure)


def unparsable(extracted: str | None, *, pure: bool = True) -> Outcome:
    """No answer could be found or read: worth nothing."""
    return Outcome(accuracy=0.0, score=0.0, extracted=extracted, status="unparsable", pure=pure)


class NoOutcome(Exception):
    """A verifier knows that it has no outcome to give and that asking again would not help; the message says why."""

    def __init__(self, message: str, status: Status = "crash"):
        super().__init__(message)
        self.status: Status = status


def anomaly(status: Status) -> Outcome:
    """What a case is worth whose verifier gave no outcome. Not pure: another run might get one."""
    return Outcome(accuracy=0.0, score=0.0, status=status, pure=False)


def outcome_from_json(data: Mapping[str, Any]) -> Outcome:
    """The outcome that `dataclasses.asdict` was made of, however its numbers were written. Raises ValueError."""
    try:
        return Outcome(
            accuracy=float(data["accuracy"]),
            score=float(data["score"]),
            extracted=data["extracted"],
            parts={str(name): float(value) for name, value in data["parts"].items()},
            status=data["status"],
            pure=bool(data["pure"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no outcome: {data!r:.200}") from error
