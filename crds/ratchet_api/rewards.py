"""What a rollout is worth: `rl.rewards[]`, a weighted sum whose parts are all logged.

Decides names, bounds and which settings belong together. How each part is computed is the trainer's matter
(`ratchet_trainer/algorithm/rewards`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ratchet_api.base import LIST_MAP, ApiModel, Decimal, Name, Rule, as_whole
from ratchet_api.verifiers import PythonVerifier

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


KINDS = ("format", "length", "language", "python")


class Reward(ApiModel):
    """One part of the reward. With none of format, length, language and python it is the verifier's judgement."""

    rules: ClassVar = (
        Rule(
            "(has(self.format) ? 1 : 0) + (has(self.length) ? 1 : 0) + (has(self.language) ? 1 : 0) + "
            "(has(self.python) ? 1 : 0) + (has(self.of) ? 1 : 0) <= 1",
            "a reward is one thing: of, format, length, language or python; give further ones a name of their own",
            lambda r: sum(getattr(r, kind) is not None for kind in (*KINDS, "of")) <= 1,
        ),
    )
    name: Name = Field(description="Name of the part; its mean is the metric reward/NAME.")
    weight: Decimal = Field(default="1", description="Factor in the sum, a decimal string; negative ones punish.")
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


REWARDS: Any = Field(
    default=[],
    max_length=16,
    json_schema_extra=LIST_MAP,
    description="What a response is worth: the sum of weight times part. Absent: accuracy alone.",
)
"""Field of `rl`."""
