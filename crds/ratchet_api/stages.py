"""The curriculum: `spec.stages[]`, what each trains and what it begins with.

Decides what a manifest may say of a stage. When it is over is in `advance`, what it says of itself in `stage_metrics`;
whether the next one may begin is the operator's stage gate (`ratchet_operator/decide/stage_gate.py`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ratchet_api import drift
from ratchet_api import expansion as expansions
from ratchet_api import method as methods
from ratchet_api import selection as selections
from ratchet_api.advance import Advance, Guard
from ratchet_api.base import (
    LIST_MAP,
    ApiModel,
    Decimal,
    Name,
    PositiveDecimal,
    Rule,
    Whole,
    as_whole,
    whole,
)
from ratchet_api.curation import CURATE_METRICS, STEPS_UNKNOWN, Curate
from ratchet_api.datasets import WeightedDataset
from ratchet_api.rewards import REWARDS, Reward
from ratchet_api.rewards import RULES as REWARD_RULES
from ratchet_api.rollouts import RULES as ROLLOUTS_RULES
from ratchet_api.rollouts import StageRollouts, lag
from ratchet_api.sampling import CORRECTION, Sampling
from ratchet_api.stage_metrics import CONDITIONAL, RL_METRICS, SFT_METRICS, SHORT_NAMES, emits_always, full_metric

RowsPerPass = Annotated[int, Field(ge=1, le=65_536), BeforeValidator(as_whole)]
ROWS_PER_PASS = Field(
    default=None,
    description="Responses that a device learns from at a time. Those of an update are taken in passes of so many, "
    "whose gradients are added: less memory, the same update but for rounding. Absent: all at once.",
)
Bucket = Annotated[int, Field(ge=1, le=131_072), BeforeValidator(as_whole)]
OnNonFinite = Literal["Fail", "SkipUpdate"]
ON_NON_FINITE: Any = Field(
    default="Fail",
    description="What to do when a loss or gradient is NaN or infinite: fail for good, with the batch written out to "
    "inspect/ in the checkpoint directory, or leave that update out and go on.",
)


class Optimizer(ApiModel):
    """AdamW, as every method here uses it."""

    learning_rate: PositiveDecimal | None = Field(
        default=None,
        description="Peak learning rate, a decimal string. Absent: 0.001 for a model with random weights; for one that "
        "was trained before 0.000001 in rl and 0.00002 in sft, as in TRL, and ten times that for adapters.",
    )
    warmup_updates: Whole = whole(
        "Updates over which the rate rises linearly from its first fraction to the peak.", ge=0, le=1_000_000, default=0
    )
    decay_updates: Whole = whole(
        "Updates after the warm-up over which the rate falls linearly to a tenth of the peak; 0 keeps it constant.",
        ge=0,
        le=100_000_000,
        default=0,
    )
    weight_decay: Decimal = Field(default="0", description="Decoupled weight decay, a decimal string.")
    clip_norm: PositiveDecimal = Field(default="1.0", description="Largest global norm of a gradient.")


class Sft(ApiModel):
    """Supervised fine-tuning: cross-entropy on the answers of a data set, one update a step."""

    dataset: Name = Field(description="Name of the data set to learn from.")
    batch_size: Whole = whole("Items a step; divisible by the number of processes.", ge=1, le=65_536, default=32)
    max_prompt_tokens: Whole = whole(
        "Longest prompt in tokens; a longer one is an error.", ge=1, le=131_072, default=128
    )
    max_response_tokens: Whole = whole("Longest answer in tokens, its end included.", ge=1, le=131_072, default=32)
    rows_per_pass: RowsPerPass | None = ROWS_PER_PASS
    on_non_finite: OnNonFinite = ON_NON_FINITE
    optimizer: Optimizer = Field(default=Optimizer(), description="Settings of the optimizer.")


class Rl(ApiModel):
    """Reinforcement learning on verified answers. `method` names a preset of the six slots."""

    rules: ClassVar = (
        Rule(
            "has(self.dataset) != has(self.datasets)",
            "prompts come from dataset, or from datasets with their weights: give one of the two",
            lambda rl: (rl.dataset is None) != (rl.datasets is None),
        ),
        *methods.RULES,
        *selections.RULES,
        *REWARD_RULES,
        *expansions.RULES,
        *ROLLOUTS_RULES,
        CORRECTION,
        Rule(
            "!has(self.promptsInFlight) || !has(self.promptsPerStep) || self.promptsInFlight <= self.promptsPerStep",
            "promptsInFlight is more than promptsPerStep; set it to less, or leave it out: all prompts of a step are "
            "answered at once then",
            lambda rl: rl.prompts_in_flight is None or rl.prompts_in_flight <= rl.prompts_per_step,
            ".promptsInFlight",
        ),
        Rule(
            "!has(self.promptBuckets) || has(self.promptsInFlight)",
            "promptBuckets needs promptsInFlight: prompts of one bucket share places, those of a whole step would fill "
            "every bucket up",
            lambda rl: rl.prompt_buckets is None or rl.prompts_in_flight is not None,
            ".promptBuckets",
        ),
        Rule(
            "!has(self.promptBuckets) || !has(self.maxPromptTokens) || "
            "self.promptBuckets.all(b, b < self.maxPromptTokens)",
            "a bucket of promptBuckets is not below maxPromptTokens, which is the last one anyway",
            lambda rl: all(b < rl.max_prompt_tokens for b in rl.prompt_buckets or ()),
            ".promptBuckets",
        ),
    )
    dataset: Name | None = Field(default=None, description="Name of the data set that prompts are drawn from.")
    datasets: list[WeightedDataset] | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        json_schema_extra=LIST_MAP,
        description="Data sets that prompts are drawn from, with the share of each; instead of dataset.",
    )
    method: methods.MethodName = Field(default="grpo", description=methods.METHOD_TEXT)
    prompts_per_step: Whole = whole(
        "Prompts a step; divisible by the number of processes.", ge=1, le=65_536, default=16
    )
    prompts_in_flight: Annotated[int, Field(ge=1, le=65_536), BeforeValidator(as_whole)] | None = Field(
        default=None,
        description="Prompts that are answered at a time, each with its whole group; a multiple of the devices is made "
        "of it. The others of the step wait, and take the places of those whose responses have all ended: less memory, "
        "and more tokens a second where lengths vary. Absent: all of a step at once.",
    )
    prompt_buckets: list[Bucket] | None = Field(
        default=None,
        min_length=1,
        max_length=8,
        description="Lengths in tokens, with promptsInFlight: a prompt is read and answered with room for the shortest "
        "of these that it fits, beside others of that length; less work where most prompts are far shorter than the "
        "longest. Which one follows from the prompt alone. Absent: room for maxPromptTokens.",
    )
    group_size: Whole = whole(
        "Rollouts of each prompt; they are compared with one another, so 2 or more but for advantage.estimator gae.",
        ge=1,
        le=1024,
        default=8,
    )
    updates_per_step: Whole = whole(
        "Mini-batches, hence optimizer updates, that a step's rollouts are split into.", ge=1, le=256, default=1
    )
    max_prompt_tokens: Whole = whole(
        "Longest prompt in tokens; a longer one is an error.", ge=1, le=131_072, default=128
    )
    max_response_tokens: Whole = whole("Longest response in tokens; it is cut there.", ge=1, le=131_072, default=32)
    rows_per_pass: RowsPerPass | None = ROWS_PER_PASS
    on_non_finite: OnNonFinite = ON_NON_FINITE
    selection: selections.Selection | None = Field(
        default=None, description="Which prompts are drawn; absent: the method's."
    )
    expansion: expansions.Expansion | None = Field(
        default=None, description="What else is sampled; absent: the method's."
    )
    rewards: list[Reward] = REWARDS
    temperature: PositiveDecimal = Field(default="1.0", description="Sampling temperature, a decimal string.")
    sampling: Sampling = Field(
        default=Sampling(), description="From which tokens responses are drawn, and what else ends them."
    )
    objective: methods.Objective = Field(default=methods.Objective(), description="How the policy is moved.")
    advantage: methods.Advantage = Field(default=methods.Advantage(), description="Which tokens earn a reward.")
    kl: drift.Kl | None = Field(
        default=None,
        description="A penalty on drift from the reference; absent: the preset's, which is none but for prorl and "
        "prorl-v2. It brings reference frozen along.",
    )
    reference: drift.Reference | None = Field(
        default=None,
        description="What drift is measured against; absent: the preset's, which is none but for prorl and "
        "prorl-v2. Given, it replaces all of the preset's.",
    )
    optimizer: Optimizer = Field(default=Optimizer(), description="Settings of the optimizer.")
    rollouts: StageRollouts | None = Field(
        default=None,
        description="How far ahead of learning its rollouts are sampled, and in which calls; absent: step by step, all "
        "prompts of a step in one call.",
    )

    @property
    def lag(self) -> int:
        """How many steps ahead it samples."""
        return lag(self)

    @property
    def mixture(self) -> list[WeightedDataset]:
        """What prompts are drawn from, with their weights."""
        return self.datasets or [WeightedDataset(name=self.dataset or "")]


class Start(ApiModel):
    """What a stage begins with."""

    weights: str = Field(
        default="previous",
        max_length=64,
        pattern=r"^(previous|best|stage/[a-z0-9]([-a-z0-9]*[a-z0-9])?)$",
        description="previous: those that the stage before ended with; best: of the stage before, those with the "
        "highest value of its first evaluation (of train/accuracy where it had none); stage/NAME: those that the stage "
        "of that name ended with.",
    )
    optimizer: Literal["reset", "keep"] = Field(
        default="reset", description="Whether the optimizer's moments start afresh or go on."
    )
    critic: Literal["keep", "reset"] = Field(
        default="keep",
        description="Where the stage before had a critic, too: whether it goes on, optimizer included; curate stages "
        "between do not count. Else, a critic starts from the policy's weights.",
    )


class Stage(ApiModel):
    """One stage of the curriculum."""

    rules: ClassVar = (
        Rule(
            "(has(self.sft) ? 1 : 0) + (has(self.rl) ? 1 : 0) + (has(self.curate) ? 1 : 0) == 1",
            "a stage works in exactly one way: sft, rl or curate",
            lambda s: sum(part is not None for part in (s.sft, s.rl, s.curate)) == 1,
        ),
        Rule(
            "has(self.curate) != has(self.advance)",
            "a stage that trains needs advance {steps: ...}; a curate stage has none, since it is over when every item "
            "is answered",
            lambda s: (s.curate is None) != (s.given_advance is None),
            ".advance",
        ),
        Rule(
            f"!has(self.curate) || !has(self.guards) || self.guards.all(g, g.metric in {list(CURATE_METRICS)!r} || "
            "g.metric.startsWith('evaluation/'))",
            f"a curate stage reports {', '.join(CURATE_METRICS)} and those of evaluations; no guard can watch another "
            "metric",
            lambda s: (
                s.curate is None
                or all(g.metric in CURATE_METRICS or g.metric.startswith("evaluation/") for g in s.guards)
            ),
            ".guards",
        ),
        Rule(
            "!has(self.curate) || !has(self.guards) || self.guards.all(g, !has(g.action) || g.action == 'Fail')",
            "a curate stage that ends early leaves no data set, so its guards can only have action: Fail",
            lambda s: s.curate is None or all(g.action == "Fail" for g in s.guards),
            ".guards",
        ),
        Rule(
            f"!has(self.sft) || self.advance.when.all(w, w.metric in {[*SFT_METRICS, 'loss', 'tokens']!r} || "
            "w.metric.startsWith('evaluation/'))",
            "an sft stage emits train/loss and train/tokens only; no rule can wait for another metric",
            lambda s: (
                s.sft is None
                or all(
                    w.metric in SFT_METRICS or w.metric in ("loss", "tokens") or w.metric.startswith("evaluation/")
                    for w in s.advance.when
                )
            ),
            ".advance.when",
        ),
        Rule(
            f"!has(self.rl) || self.advance.when.all(w, w.metric in {list(RL_METRICS) + list(SHORT_NAMES)!r} || "
            "w.metric.startsWith('evaluation/') || w.metric.startsWith('reward/'))",
            "an rl stage emits " + ", ".join(RL_METRICS) + "; no rule can wait for another metric",
            lambda s: s.rl is None or all(emits_always(full_metric(w.metric)) for w in s.advance.when),
            ".advance.when",
        ),
        *(
            Rule(
                f"!has(self.rl) || {cel} || !self.advance.when.exists(w, w.metric in "
                f"{[metric, metric.removeprefix('train/')]!r})",
                way_out,
                lambda s, metric=metric, emits=emits: (  # type: ignore[misc]
                    s.rl is None or emits(s.rl) or all(full_metric(w.metric) != metric for w in s.advance.when)
                ),
                ".advance.when",
            )
            for metric, cel, emits, way_out in CONDITIONAL
        ),
        Rule(
            "!has(self.rl) || (self.rl.promptsPerStep * self.rl.groupSize) % self.rl.updatesPerStep == 0",
            "rl.promptsPerStep x rl.groupSize must be divisible by rl.updatesPerStep",
            lambda s: s.rl is None or (s.rl.prompts_per_step * s.rl.group_size) % s.rl.updates_per_step == 0,
            ".rl.updatesPerStep",
        ),
    )

    @property
    def may_need_approval(self) -> bool:
        """Whether it can end in a way that has what comes next wait for an entry in spec.approvals."""
        at_limit = bool(self.advance.when) and self.advance.at_limit == "Approval"
        return at_limit or self.advance.approval == "Manual" or any(g.action == "Approval" for g in self.guards)

    @property
    def dataset_names(self) -> list[str]:
        """Data sets that it trains on, or looks through."""
        one = self.sft or self.curate
        return [one.dataset] if one is not None else [d.name for d in self.rl.mixture] if self.rl else []

    @property
    def settings(self) -> Sft | Rl | Curate:
        """How it works."""
        found = self.sft or self.rl or self.curate
        assert found is not None, "the type's rules"
        return found

    @property
    def advance(self) -> Advance:
        """When it is over, as far as the manifest says: a curate stage, once its items are answered."""
        if self.given_advance is not None:
            return self.given_advance
        return Advance(steps=STEPS_UNKNOWN, approval=self.curate.approval if self.curate is not None else "None")

    name: Name = Field(description="Name of the stage, shown in status and metrics.")
    sft: Sft | None = Field(default=None, description="Supervised fine-tuning.")
    rl: Rl | None = Field(default=None, description="Reinforcement learning.")
    curate: Curate | None = Field(default=None, description="Makes a data set of another one.")
    given_advance: Advance | None = Field(
        default=None, alias="advance", description="When the stage is over; needed by stages that train."
    )
    guards: list[Guard] = Field(
        default=[], max_length=16, description="Bounds that metrics must keep to while the stage trains."
    )
    start: Start = Field(default=Start(), description="What the stage begins with.")


STAGES = Field(
    min_length=1, max_length=64, json_schema_extra=LIST_MAP, description="The curriculum: stages in the order they run."
)
