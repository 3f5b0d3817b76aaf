"""What a manifest may say of what else is sampled, once the drawn prompts are answered: `rl.expansion`.

Decides kinds, the knobs of each and their bounds, and what an absent knob means. How it is sampled is the trainer's
matter (`ratchet_trainer/algorithm/expansion`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ratchet_api import selection
from ratchet_api.base import LIST_MAP, ApiModel, Name, Rule, as_whole
from ratchet_api.method import estimator, estimator_cel, kind_cel, rules_of_kinds, samples_values
from ratchet_api.presets import PRESETS
from ratchet_api.rewards import OF_FAILED_GROUPS_CEL, of_failed_groups

if TYPE_CHECKING:
    from ratchet_api.stages import Rl

Kind = Literal["none", "dynamicSampling", "hints", "templates"]
GenerationRounds = Annotated[int, Field(ge=1, le=1000), BeforeValidator(as_whole)]
Levels = Annotated[int, Field(ge=1, le=64), BeforeValidator(as_whole)]
Steps = Annotated[int, Field(ge=0, le=100_000_000), BeforeValidator(as_whole)]
Patience = Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(as_whole)]
Prompts = Annotated[int, Field(ge=1, le=65_536), BeforeValidator(as_whole)]

MAX_ROUNDS = 10
"""verl's `max_num_gen_batches`."""
LEVELS = 12
"""Three tiers of four hints, arXiv 2510.19807, section 3.2."""
EXEMPT, EXEMPT_AT_MOST = 15, 40
"""Percent of a stage's steps without hints, there; the most that it tried, which bounds trueHard."""
TEXT = "{question}\n\nHint: {hint}"


class TrueHard(ApiModel):
    """Ends the exemption from hints once practice alone no longer helps."""

    patience: Patience = Field(
        description="Steps without a new low of the share of prompts that fail whole, after which hints begin."
    )


class Template(ApiModel):
    """A way to put a question."""

    rules: ClassVar = (
        Rule(
            "self.text.contains('{question}')",
            "text has no {question}, so all prompts would be the same; write {question} where it belongs",
            lambda t: "{question}" in t.text,
            ".text",
        ),
    )
    name: Name = Field(description="Name of the template, shown in metrics: template/NAME/accuracy.")
    text: str = Field(min_length=1, max_length=4096, description="The prompt; {question} stands for the question.")


class Expansion(ApiModel):
    """What else is sampled once the drawn prompts are answered."""

    kind: Kind | None = Field(
        default=None,
        description="none: what was drawn is what is trained on. dynamicSampling: prompts whose responses are all "
        "right or all wrong are dropped, and others are drawn until the step has promptsPerStep of them (DAPO, arXiv "
        "2503.14476). hints: a prompt whose responses are all wrong is asked again with hints, and the first right "
        "response takes the place of a wrong one (Scaf-GRPO, arXiv 2510.19807). templates: the responses to "
        "a prompt are shared out among ways to put its question (TemplateRL, arXiv 2505.15692). Absent: the method's.",
    )
    max_rounds: GenerationRounds | None = Field(
        default=None,
        description="Rounds of generation that a step makes at most, the first one included, kind dynamicSampling; "
        "then it trains on what there is. Absent: 10.",
    )
    prompts_per_round: Prompts | None = Field(
        default=None,
        description="Prompts that are drawn in a round, kind dynamicSampling; absent: promptsPerStep, which a sampling "
        "call has room for anyway.",
    )
    surplus: Literal["drop", "carry"] | None = Field(
        default=None,
        description="What becomes of prompts beyond promptsPerStep that would teach something, kind dynamicSampling. "
        "drop: nothing. carry: the next step trains on them first, with the probabilities that they were sampled "
        "with; at most one step old. Absent: drop.",
    )
    text: str | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="The question with a hint, kind hints: {question} and {hint} stand for them. Absent: the question, "
        "an empty line, and Hint: with the hint.",
    )
    levels: Levels | None = Field(
        default=None, description="Levels of an item's hints that are tried at most, kind hints; absent: 12."
    )
    search: Literal["oneByOne", "allAtOnce"] | None = Field(
        default=None,
        description="How the first level that helps is found, kind hints. oneByOne: a round of generation a level, for "
        "the prompts that none has helped yet; allAtOnce: all in one round, more responses in less time. Absent: "
        "oneByOne.",
    )
    exempt_steps: Steps | None = Field(
        default=None,
        description="First steps of the stage without hints, kind hints; absent: 15 % of advance.steps, with trueHard "
        "40 %.",
    )
    true_hard: TrueHard | None = Field(
        default=None,
        description="Begins with hints before exemptSteps are over if practice alone no longer helps, kind hints; "
        "absent: none.",
    )
    templates: list[Template] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        json_schema_extra=LIST_MAP,
        description="Ways to put a question, kind templates, which needs them; groupSize is shared out among them.",
    )
    baseline: Literal["pooled", "perTemplate"] | None = Field(
        default=None,
        description="What a response is compared with, kind templates. pooled: all responses to its question; "
        "perTemplate: those to its template alone. Absent: pooled.",
    )


KNOBS = (
    # knob here and in the manifest, and the kind that it belongs to
    ("max_rounds", "maxRounds", "dynamicSampling"),
    ("prompts_per_round", "promptsPerRound", "dynamicSampling"),
    ("surplus", "surplus", "dynamicSampling"),
    ("text", "text", "hints"),
    ("levels", "levels", "hints"),
    ("search", "search", "hints"),
    ("exempt_steps", "exemptSteps", "hints"),
    ("true_hard", "trueHard", "hints"),
    ("templates", "templates", "templates"),
    ("baseline", "baseline", "templates"),
)


def knob(rl: Rl, name: str) -> Any:
    """What the manifest says of a knob; None: nothing."""
    return getattr(rl.expansion, name, None)


def kind(rl: Rl) -> str:
    """The kind of expansion that a stage has, its method's or its own."""
    return knob(rl, "kind") or PRESETS[rl.method].expansion


def max_rounds(rl: Rl) -> int:
    """Rounds of generation that a step makes at most."""
    return knob(rl, "max_rounds") or MAX_ROUNDS


def prompts_per_round(rl: Rl) -> int:
    """Prompts that are drawn in a round of generation."""
    return knob(rl, "prompts_per_round") or rl.prompts_per_step


def carries(rl: Rl) -> bool:
    """Whether a step may train on what the one before it sampled."""
    return kind(rl) == "dynamicSampling" and knob(rl, "surplus") == "carry"


def text(rl: Rl) -> str:
    """A question with a hint, in which {question} and {hint} stand for them."""
    return knob(rl, "text") or TEXT


def levels(rl: Rl) -> int:
    """Levels of hints that are tried at most."""
    return knob(rl, "levels") or LEVELS


def one_by_one(rl: Rl) -> bool:
    """Whether each level of hints has a round of its own."""
    return bool(knob(rl, "search") != "allAtOnce")


def patience(rl: Rl) -> int | None:
    """Steps without progress after which hints begin; None: only once the exempt steps are over."""
    hard = knob(rl, "true_hard")
    return None if hard is None else int(hard.patience)


def exempt_steps(rl: Rl, steps: int) -> int:
    """First steps without hints of a stage that makes `steps`, with trueHard at most."""
    said = knob(rl, "exempt_steps")
    return steps * (EXEMPT if patience(rl) is None else EXEMPT_AT_MOST) // 100 if said is None else int(said)


def templates(rl: Rl) -> list[Template]:
    """The ways to put a question; none where it is put as it is."""
    return (knob(rl, "templates") or []) if kind(rl) == "templates" else []


def responses_of_a_prompt(rl: Rl) -> int:
    """Responses of a draw that one prompt gets."""
    return rl.group_size // max(1, len(templates(rl)))


def puts(rl: Rl) -> int:
    """Ways in which a drawn prompt is put at most: by each template, or as it is and with a hint."""
    return max(1, len(templates(rl)), 2 if kind(rl) == "hints" else 1)


def per_template(rl: Rl) -> bool:
    """Whether a response is compared with those to its template alone."""
    return bool(knob(rl, "baseline") == "perTemplate")


# The first in CEL, given where the Rl is.
KIND_CEL = kind_cel("expansion", usual="none")
_KIND = KIND_CEL.format("self")
_TEMPLATES = "has(self.expansion) && has(self.expansion.templates)"
_PER_TEMPLATE = "has(self.expansion) && has(self.expansion.baseline) && self.expansion.baseline == 'perTemplate'"

RULES = (
    *rules_of_kinds("expansion", KNOBS, KIND_CEL, kind),
    Rule(
        f"{_KIND} != 'dynamicSampling' || self.groupSize >= 2",
        "expansion.kind dynamicSampling drops prompts whose responses are all right or all wrong, and one response "
        "always is; use groupSize 2 or more, or expansion {kind: none}",
        lambda rl: kind(rl) != "dynamicSampling" or rl.group_size >= 2,
        ".groupSize",
    ),
    Rule(
        f"({_KIND} != 'dynamicSampling' && !{estimator_cel('vine').format('self')}) || !{OF_FAILED_GROUPS_CEL}",
        "rewards[].correctPrefix with scope failedGroups is for prompts that fail whole: expansion.kind "
        "dynamicSampling drops these, and advantage.estimator vine would take a state's continuations for such a "
        "prompt; use scope wrongResponses, or leave one of the two out",
        lambda rl: not of_failed_groups(rl.rewards) or (kind(rl) != "dynamicSampling" and not samples_values(rl)),
        ".rewards",
    ),
    Rule(
        f"{_KIND} != 'hints' || self.groupSize >= 2",
        "expansion.kind hints compares a hinted response with others of its prompt; use groupSize 2 or more, or "
        "expansion {kind: none}",
        lambda rl: kind(rl) != "hints" or rl.group_size >= 2,
        ".groupSize",
    ),
    Rule(
        "!has(self.expansion) || !has(self.expansion.text) || self.expansion.text.contains('{hint}')",
        "expansion.text has no {hint}, so no hint would be seen; write {hint} where it belongs, and {question} for the "
        "question",
        lambda rl: knob(rl, "text") is None or "{hint}" in knob(rl, "text"),
        ".expansion",
    ),
    Rule(
        f"{_KIND} != 'templates' || ({_TEMPLATES})",
        "expansion.kind templates needs templates; give expansion.templates, for example "
        "[{name: steps, text: 'Think step by step. {question}'}]",
        lambda rl: kind(rl) != "templates" or bool(templates(rl)),
        ".expansion",
    ),
    Rule(
        f"!({_TEMPLATES}) || self.groupSize % size(self.expansion.templates) == 0",
        "groupSize is shared out evenly among expansion.templates; make it a multiple of their number",
        lambda rl: not templates(rl) or rl.group_size % len(templates(rl)) == 0,
        ".groupSize",
    ),
    Rule(
        f"!({_PER_TEMPLATE}) || !({_TEMPLATES}) || self.groupSize >= 2 * size(self.expansion.templates)",
        "expansion.baseline perTemplate compares the responses of one template, and some would have a single one; use "
        "a groupSize of 2 or more for each, or baseline pooled",
        lambda rl: not per_template(rl) or not templates(rl) or rl.group_size >= 2 * len(templates(rl)),
        ".expansion",
    ),
    Rule(
        f"!({_PER_TEMPLATE}) || !({estimator_cel('gae').format('self')} || {estimator_cel('vine').format('self')})",
        "expansion.baseline says which responses are compared, and advantage.estimator gae or vine compares none; "
        "leave one of them out",
        lambda rl: not per_template(rl) or estimator(rl) not in ("gae", "vine"),
        ".expansion",
    ),
    Rule(
        f"{_KIND} != 'templates' || !has(self.selection) || !has(self.selection.reuse) || !self.selection.reuse",
        "selection.reuse trains on responses to the question as it is, and expansion.kind templates puts it otherwise; "
        "leave reuse out",
        lambda rl: kind(rl) != "templates" or not selection.reuse(rl),
        ".expansion",
    ),
)
