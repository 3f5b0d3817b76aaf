"""The documents that pass between operator and trainer, as types: both sides write and read these and no others.

| document | written by | read by | carried in |
|---|---|---|---|
| `JobFile` | operator | trainer | the attempt's ConfigMap |
| `StageGate` | operator | process 0 | annotation `ratchet.dev/word` on the leader pod |
| `ProgressDocument` | process 0 | operator | the answer of `GET /progress` |
| `TerminationMessage` | every process | operator | the pod's termination message |

Decides what is well formed. Names are camelCase outside. A reader takes versions V and V - 1, ignores unknown keys,
and takes an absent field as its default; every text and number has a bound, because a trainer runs users' code and
what it says is a claim.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WrapValidator
from pydantic.alias_generators import to_camel

from ratchet_api.protocol import PROGRESS_LIMIT, PROGRESS_PHASES, TERMINATION_MESSAGE_LIMIT, V

STEP_MAX = 2**53 - 1
ATTEMPT_MAX = 1_000_000
"""A claim of a higher attempt is not believed: the next number would be one more, and numbers only grow."""
LEARNING_MESSAGE_MAX = 1000
LINE_MAX = 1024
ARTIFACTS_MAX = 64


def one_line(text: Any, most: int = LEARNING_MESSAGE_MAX) -> Any:
    """Text as one printable line of at most `most` characters; what is no text is returned as it is.

    Answers of a model are shown in messages, and a model may say anything.
    """
    if not isinstance(text, str):
        return text
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= most else line[: most - 4] + " ..."


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has characters that cannot be printed")
    return text


def _is_text(text: str) -> str:
    text.encode()  # half a surrogate is no text: UnicodeEncodeError is a ValueError
    return text


def _leave_out(value: Any, validate: Any) -> Any:
    try:
        return validate(value)
    except ValidationError:
        return None


Version = Annotated[int, Field(ge=V - 1, le=V)]
Count = Annotated[int, Field(ge=0, le=STEP_MAX)]
Number = Annotated[float, Field(gt=-1e300, lt=1e300)]
Text = Annotated[str, AfterValidator(_is_text)]
Line = Annotated[str, Field(max_length=LINE_MAX), AfterValidator(_printable)]


class Document(BaseModel):
    """Base of everything on the wire: no coercion, unknown keys ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        defer_build=True,
    )

    def plain(self) -> dict[str, Any]:
        """Plain JSON data with the names of the wire; a field that is not set is None."""
        return self.model_dump(mode="json", by_alias=True)


D = TypeVar("D", bound=Document)


def read_leniently(model: type[D], data: dict[str, Any]) -> D:
    """The document, with every malformed field left out that may be absent.

    Raises ValidationError when a field that must be there is missing or malformed.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        wrong = {str(problem["loc"][0]) for problem in error.errors() if problem["loc"]}
    return model.model_validate({key: value for key, value in data.items() if key not in wrong})


# --- operator to trainer --------------------------------------------------------------------------------------------


class JobFile(Document):
    """What an attempt is to run; fixed for its life."""

    v: Version = V
    namespace: str
    name: str
    job_uid: str = Field(alias="jobUID")
    spec: dict[str, Any]
    """The job's spec as admitted, defaults applied."""
    may_enter: Count
    """Index of the last stage that may be entered before the gate says more."""


class GateStage(Document):
    """A stage that began, was edited or was appended after the attempt's job file was made."""

    index: Count
    spec_hash: str
    """SHA-256 of the canonical JSON of `spec`."""
    spec: dict[str, Any]


class StageGate(Document):
    """How far a running trainer may go."""

    v: Version = V
    job_uid: str = Field(alias="jobUID")
    attempt: Count
    may_enter: Count
    """Index of the last stage that may be entered: a ceiling, it only rises."""
    spec_hash: str | None = None
    """Hash of the stage `may_enter`."""
    finish: bool = False
    """Whether the end of the last stage is on record, so that the trainer may exit with 0."""
    checkpoint_request: Count = 0
    """Only grows; a new number asks for a checkpoint at the next step."""
    stages: list[GateStage] = []


# --- trainer to operator --------------------------------------------------------------------------------------------


class StageShown(Document):
    """The stage that a trainer is in."""

    name: Line
    index: Count
    start_step: Count
    generated_tokens: Count | None = None
    """Tokens that were sampled for its steps so far."""


class Boundary(Document):
    """The end of a stage: its index, its last step, the rule that held."""

    stage: Count
    step: Count
    rule: Line
    needs_approval: bool = False
    """Whether what comes after the stage waits for an entry in spec.approvals."""


class Committed(Document):
    """A checkpoint that the journal names."""

    step: Count
    path: Line
    time: Line | None = None


class Artifact(Document):
    """Weights that were written for other tools at the end of a stage."""

    stage: Line
    step: Count
    path: Line


class Inherited(Document):
    """The job whose checkpoints another one goes on from."""

    namespace: Line
    name: Line
    job_uid: Line = Field(alias="jobUID")


class ExactSince(Document):
    """From which step on the bits are no longer those of an undisturbed run, and why."""

    step: Count
    reason: Line


class TrackerShown(Document):
    """How far a tracker of spec.trackers has been told of the run."""

    name: Annotated[str, Field(max_length=40), AfterValidator(_printable)]
    state: Literal["Following", "Behind", "Left"]
    step: Count | None = None
    message: Annotated[str, BeforeValidator(one_line)] = ""


class RolloutsShown(Document):
    """What a trainer with a fleet knows of it."""

    version: Annotated[str, Field(max_length=64), AfterValidator(_printable)] | None = None
    """Digest of the newest weights that workers may fetch."""
    waiting_calls: Count | None = None
    """Calls that have no result yet."""
    results_per_second: Number | None = None
    workers: Count | None = None
    """Workers whose heartbeat it has seen lately."""


LearningStatus = Literal["True", "False", "Unknown"]

LEARNING_REASONS: dict[str, tuple[LearningStatus, str]] = {
    "Learning": ("True", "rewards differ within groups, and nothing speaks against progress"),
    "NoInformativeGroups": ("False", "the answers to a prompt all get the same reward below the best one"),
    "AllSolved": ("False", "nearly every answer gets the best reward: there is nothing left to learn here"),
    "ResponsesTruncated": ("False", "most responses reach the length limit before they end"),
    "EntropyCollapsed": ("False", "the policy hardly varies its answers any more"),
    "SamplerTrainerMismatch": ("False", "sampler and learner disagree about the probabilities of the same tokens"),
    "RewardFalling": ("False", "the reward has fallen well below what it was"),
    "NotYetKnown": ("Unknown", "there are too few steps to tell"),
    "NotApplicable": ("Unknown", "the stage has no rewards to learn from"),
}
"""Reason of the condition Learning -> its status, and what it means. Finite; docs/conditions.md is made from it."""


class Learning(Document):
    """Whether the model learns, as the trainer computes it from committed metrics."""

    status: LearningStatus
    reason: Annotated[str, Field(pattern="^[A-Z][A-Za-z]*$", max_length=64)]
    message: Annotated[str, BeforeValidator(one_line)] = ""

    @classmethod
    def because(cls, reason: str, message: str = "") -> Learning:
        """The statement for one of LEARNING_REASONS. Raises KeyError for any other reason."""
        return cls(status=LEARNING_REASONS[reason][0], reason=reason, message=message)


Phase = Literal[PROGRESS_PHASES]  # type: ignore[valid-type]


class ProgressDocument(Document):
    """The answer of `GET /progress`. Identity, revision and phase must be there; the rest comes when it is known."""

    v: Version = V
    job_uid: Line = Field(alias="jobUID")
    attempt: Count
    job_set_uid: Line = Field(alias="jobSetUID")
    revision: Line | Count
    """Opaque; another one means that something else has changed."""
    phase: Phase
    stage: StageShown | None = None
    start_step: Count | None = None
    """The step that this attempt went on from, once it has restored."""
    inherited: Annotated[Inherited | None, WrapValidator(_leave_out)] = None
    """Whose step that is, where it is another job's."""
    step: Count | None = None
    target_step: Count | None = None
    reward: Number | None = None
    accuracy: Number | None = None
    tokens_per_second: Number | None = None
    checkpoint: Committed | None = None
    boundary: Boundary | None = None
    exact_since: ExactSince | None = None
    draining: bool | None = None
    parts: Annotated[dict[Line, Number | None], Field(max_length=32)] | None = None
    """Seconds that the parts of this start took: start, restore, compile, step."""
    last_safe_point_age_seconds: Number | None = None
    artifacts: Annotated[list[Artifact], Field(max_length=ARTIFACTS_MAX)] | None = None
    """Weights that this attempt has written or found written, one entry a stage."""
    trackers: Annotated[list[TrackerShown] | None, Field(max_length=8), WrapValidator(_leave_out)] = None
    rollouts: Annotated[RolloutsShown | None, WrapValidator(_leave_out)] = None
    """Of a trainer whose rollouts workers sample."""
    learning: Annotated[Learning | None, WrapValidator(_leave_out)] = None
    """Advice: a malformed one is left out, the rest of the answer counts."""


def progress_answer(document: dict[str, Any]) -> bytes:
    """The answer as JSON within PROGRESS_LIMIT. What may be absent and is malformed (a reward that is no number) is
    left out, so that the rest is still heard. Raises ValidationError when identity, revision or phase are malformed.
    """
    fields = {
        **document,
        "boundary": _shortened(document.get("boundary"), "rule"),
        "exactSince": _shortened(document.get("exactSince"), "reason"),
    }
    said = read_leniently(ProgressDocument, fields)
    while len(data := _compact(said.plain())) > PROGRESS_LIMIT and said.artifacts:
        said = said.model_copy(update={"artifacts": said.artifacts[1:]})  # the newest counts: others were told before
    assert len(data) <= PROGRESS_LIMIT, "every other part is bounded"
    return data


class Owner(Document):
    """The attempt that claimed the checkpoint directory from a fenced trainer."""

    job_uid: Text = Field(alias="jobUID")
    attempt: Annotated[int, Field(ge=0, le=ATTEMPT_MAX)]


class TerminationMessage(Document):
    """Why a process left."""

    v: Version = V
    reason: Text | None = None
    message: Text | None = None
    step: Count | None = None
    """The last step that it knows to be committed."""
    boundary: Boundary | None = None
    stage: StageShown | None = None
    """The stage that it was in, where that is over or its budget is spent."""
    owner: Owner | None = None


def read_termination_message(text: str) -> TerminationMessage:
    """What of a termination message is well formed; an empty one when it is of another version or no message at all."""
    try:
        said = json.loads(text)
        if not isinstance(said, dict) or "v" not in said:
            return TerminationMessage()
        return read_leniently(TerminationMessage, said) if _is_version(said["v"]) else TerminationMessage()
    except (ValueError, RecursionError):
        return TerminationMessage()


def termination_message(
    reason: str,
    text: str,
    step: int,
    boundary: dict[str, Any] | None = None,
    owner: dict[str, Any] | None = None,
    stage: dict[str, Any] | None = None,
) -> bytes:
    """The message as bytes that fit; `text` is cut in the middle if it must be (its start and its end say the most)."""
    shown = text.encode(errors="replace").decode()  # half a surrogate is no text
    fields = {"reason": reason, "step": step, "boundary": _shortened(boundary, "rule"), "owner": owner}
    fields |= {"stage": stage}
    while True:
        said = read_leniently(TerminationMessage, {**fields, "message": shown})
        encoded = _compact(said.model_dump(mode="json", by_alias=True, exclude_none=True))
        if len(encoded) <= TERMINATION_MESSAGE_LIMIT or not shown:
            return encoded
        # A character takes one to twelve bytes: cut in proportion, at least one more each time, until it fits.
        keep = max(0, min(len(shown) - 6, len(shown) * TERMINATION_MESSAGE_LIMIT // len(encoded) - 5)) // 2
        shown = shown[:keep] + " ... " + shown[len(shown) - keep :] if keep else ""


def _is_version(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and V - 1 <= value <= V


def _shortened(part: dict[str, Any] | None, text: str) -> dict[str, Any] | None:
    """The part with that text made fit: a long rule is no reason to leave out the end of a stage."""
    return None if part is None else {**part, text: one_line(part.get(text), LINE_MAX)}


def _compact(data: dict[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()
