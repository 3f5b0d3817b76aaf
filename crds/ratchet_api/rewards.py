"""What a rollout is worth: `rl.rewards[]`, a weighted sum whose parts are all logged.

Decides names, bounds and which settings belong together. How each part is computed is the trainer's matter
(`ratchet_trainer/algorithm/rewards`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ratchet_api.base import LIST_MAP, ApiModel, Decimal, Name, PositiveDecimal, Rule, as_whole
from ratchet_api.verifiers import HttpVerifier, PythonVerifier

Tokens = Annotated[int, Field(ge=1, le=131_072), BeforeValidator(as_whole)]


class FormatReward(ApiModel):
    """1 where the response has a form, else 0."""

    rules: ClassVar = (
        Rule(
            "has(self.pattern) != has(self.tags)",
            "say the form in one way: pattern or tags",
            lambda f: (f.pattern is None) != (f.tags is None),
        ),
        Rule(
            "!has(self.tags) || self.tags.all(t, self.tags.exists_one(u, u == t))",
            "each tag is opened and closed once, so a tag that is named twice could never be met; name it once",
            lambda f: f.tags is None or len(set(f.tags)) == len(f.tags),
            ".tags",
        ),
    )
    pattern: str | None = Field(
        default=None,
        min_length=1,
        max_length=1024,
        description="Regular expression of RE2 that the whole response matches, white space around it left out; '.' "
        "matches line ends, too.",
    )
    tags: list[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=32)]] | None = Field(
        default=None,
        min_length=1,
        max_length=8,
        description="Tags that follow one another, each opened and closed once, for example [think, answer]; the last "
        "one ends the response.",
    )


class LengthReward(ApiModel):
    """What the length of a response earns."""

    rules: ClassVar = (
        Rule(
            "(self.kind == 'overlong') == has(self.buffer)",
            "buffer belongs to kind overlong, which needs it",
            lambda r: (r.kind == "overlong") == (r.buffer is not None),
            ".buffer",
        ),
    )
    kind: Literal["overlong", "cosine"] = Field(
        description="overlong (DAPO, arXiv 2503.14476, equation 13): 0 up to maxResponseTokens minus buffer, then "
        "falling linearly to -1 at maxResponseTokens. cosine (arXiv 2502.03373): a right answer earns from 1 (short) "
        "down to 0.5 (long), a wrong one from -1 (short) up to -0.5 (long), a cut one -1."
    )
    buffer: Tokens | None = Field(default=None, description="Tokens before the limit in which the penalty grows.")


class LanguageReward(ApiModel):
    """The share of the letters of a response that belong to a script."""

    script: Literal["Latin", "Cyrillic", "Greek", "Han", "Kana", "Hangul", "Arabic", "Hebrew", "Devanagari"] = Field(
        description="Script of the language that answers are wanted in; 1 for a response without letters."
    )


class UnfinishedReward(ApiModel):
    """What a response earns that maxResponseTokens cut (ProRL, arXiv 2505.24864); one that ended earns 0."""

    rules: ClassVar = (
        Rule(
            "!has(self.value) || (double(self.value) >= -1e15 && double(self.value) <= 1e15)",
            "value is beyond 1e15, and the square of such a reward has no place in a float; take a smaller one",
            lambda u: abs(float(u.value)) <= 1e15,
            ".value",
        ),
    )
    value: Decimal = Field(
        default="-1", description="What a cut response earns, however much of it there is; a decimal string."
    )


Steps = Annotated[int, Field(ge=1, le=100_000_000), BeforeValidator(as_whole)]


class Cycle(ApiModel):
    """Steps of the stage in which a reward counts, and then does not, over and over; the first ones count."""

    on: Steps = Field(description="Steps in which it counts.")
    off: Steps = Field(description="Steps after them in which its weight is 0; it is still a metric.")


class CorrectPrefixReward(ApiModel):
    """What a wrong response earns by its steps before the first wrong one (SGPO, arXiv 2505.11595)."""

    rules: ClassVar = (
        Rule(
            "has(self.python) != has(self.http)",
            "steps are checked in one way: by a function (python) or by an endpoint (http); give one of the two",
            lambda c: (c.python is None) != (c.http is None),
        ),
        Rule(
            "!has(self.gamma) || (double(self.gamma) >= 0.0 && double(self.gamma) <= 1.0)",
            "gamma is a share of the steps, so it must be between 0 and 1; 0.5 is usual",
            lambda c: 0 <= float(c.gamma) <= 1,
            ".gamma",
        ),
    )
    python: PythonVerifier | None = Field(
        default=None,
        description="A function that checks steps. Its case has `steps`, too; it returns one True or False a step, or "
        "the share of right steps, 0 to 1.",
    )
    http: HttpVerifier | None = Field(
        default=None,
        description="An endpoint that checks steps. It gets `steps`, too, and answers {firstWrong: index from 0, or "
        "null where all are right}, {steps: [true, false, ...]} or {score: 0 to 1}.",
    )
    steps: Literal["lines", "sentences", "paragraphs", "words"] = Field(
        default="lines",
        description="How a response is split into steps; empty ones are none. lines: at line ends. sentences: after "
        "'.', '!' or '?' with white space behind it. paragraphs: at empty lines. words: at white space.",
    )
    beta: PositiveDecimal = Field(
        default="5", description="How steeply the reward rises with the share of right steps, a decimal string."
    )
    gamma: Decimal = Field(default="0.5", description="Share of right steps that earns half, a decimal string.")
    scope: Literal["failedGroups", "wrongResponses"] = Field(
        default="failedGroups",
        description="Which responses earn it. failedGroups: those of a prompt that no response answered right. "
        "wrongResponses: every wrong one.",
    )


KINDS = ("format", "length", "language", "python", "correctPrefix", "unfinished")
"""Fields of a reward of which each makes it another thing than the verifier's judgement."""


class Reward(ApiModel):
    """One part of the reward. Where no field says what it is of, it is the verifier's judgement."""

    rules: ClassVar = (
        Rule(
            " + ".join(f"(has(self.{kind}) ? 1 : 0)" for kind in (*KINDS, "of")) + " <= 1",
            f"a reward is one thing: of, {', '.join(KINDS[:-1])} or {KINDS[-1]}; give further ones a name of their own",
            lambda r: len(r.kinds) + (r.of is not None) <= 1,
        ),
        Rule(
            "!has(self.weight) || (double(self.weight) >= -1e15 && double(self.weight) <= 1e15)",
            "weight is beyond 1e15, and the square of such a reward has no place in a float; take a smaller one, since "
            "only how weights compare counts",
            lambda r: abs(float(r.weight)) <= 1e15,
            ".weight",
        ),
    )
    name: Name = Field(description="Name of the part; its mean is the metric reward/NAME.")
    weight: Decimal = Field(default="1", description="Factor in the sum, a decimal string; negative ones punish.")
    cycle: Cycle | None = Field(default=None, description="When the weight counts. Absent: in every step.")
    of: Literal["accuracy", "score"] | None = Field(
        default=None,
        description="What the verifier said: accuracy, 1 or 0, or its score, which may lie between. Absent: accuracy.",
    )
    format: FormatReward | None = Field(default=None, description="For a form of the response.")
    length: LengthReward | None = Field(default=None, description="For the length of the response.")
    language: LanguageReward | None = Field(default=None, description="For the language of the response.")
    python: PythonVerifier | None = Field(
        default=None, description="What the user's own function says: any number, called once a response."
    )
    correct_prefix: CorrectPrefixReward | None = Field(
        default=None, description="For the steps of a wrong response before its first wrong one."
    )

    unfinished: UnfinishedReward | None = Field(default=None, description="For responses that do not end.")

    @property
    def kinds(self) -> list[str]:
        """Which of KINDS it has; none: it is what the verifier said."""
        return [
            field.alias or name
            for name, field in type(self).model_fields.items()
            if (field.alias or name) in KINDS and getattr(self, name) is not None
        ]

    @property
    def checker(self) -> PythonVerifier | HttpVerifier | None:
        """What is asked about every response for this part: the user's own function or endpoint."""
        if self.correct_prefix is not None:
            return self.correct_prefix.python or self.correct_prefix.http
        return self.python


REWARDS: Any = Field(
    default=[],
    max_length=16,
    json_schema_extra=LIST_MAP,
    description="What a response is worth: the sum of weight times part. Absent: accuracy alone.",
)
"""Field of `rl`."""

HAS_PREFIX_CEL = "self.rewards.exists(r, has(r.correctPrefix))"
OF_FAILED_GROUPS_CEL = (
    "self.rewards.exists(r, has(r.correctPrefix) && "
    "(!has(r.correctPrefix.scope) || r.correctPrefix.scope == 'failedGroups'))"
)
RULES = (
    Rule(
        f"!{HAS_PREFIX_CEL} || self.rewards.exists(r, double(r.weight) > 0.0 && "
        + " && ".join(f"!has(r.{kind})" for kind in KINDS)
        + ")",
        "correctPrefix is for wrong responses, so without what right ones earn they would lose against it; add "
        "{name: accuracy}, with a weight above 0",
        lambda rl: not has_prefix(rl.rewards) or any(not r.kinds and float(r.weight) > 0 for r in rl.rewards),
        ".rewards",
    ),
    Rule(
        "size(self.rewards) == 0 || self.rewards.exists(r, double(r.weight) != 0.0)",
        "every part of rewards has weight 0, so all responses would earn the same; give one of them another weight, or "
        "leave rewards out, which means accuracy",
        lambda rl: not rl.rewards or any(float(r.weight) != 0 for r in rl.rewards),
        ".rewards",
    ),
    Rule(
        f"self.method != 'sgpo' || {HAS_PREFIX_CEL}",
        "method sgpo learns from the right steps of wrong responses, and no reward looks at them; add {name: accuracy} "
        "and {name: prefix, correctPrefix: {python: {entrypoint: ...}}}, or take method grpo",
        lambda rl: rl.method != "sgpo" or has_prefix(rl.rewards),
        ".rewards",
    ),
)
"""Rules of `rl` about its rewards."""


def has_prefix(rewards: list[Reward]) -> bool:
    """Whether a part looks at steps."""
    return any(reward.correct_prefix is not None for reward in rewards)


def of_failed_groups(rewards: list[Reward]) -> bool:
    """Whether a part is only for responses to prompts that fail whole."""
    return any(r.correct_prefix is not None and r.correct_prefix.scope == "failedGroups" for r in rewards)
