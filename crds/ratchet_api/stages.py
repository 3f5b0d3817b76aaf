"""The curriculum: `spec.stages[]`, what each trains and when it is over.

Decides what a manifest may say of a stage. When a rule holds is decided by the trainer at step boundaries
(`ratchet_trainer/step/stage_over.py`); whether the next stage may begin is the operator's stage gate
(`ratchet_operator/decide/stage_gate.py`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ratchet_api import drift
from ratchet_api import expansion as expansions
from ratchet_api import method as methods
from ratchet_api import selection as selections
from ratchet_api.base import (
    LIST_MAP,
    METRIC_PATTERN,
    ApiModel,
    Decimal,
    Name,
    PositiveDecimal,
    Rule,
    Whole,
    as_whole,
    whole,
)
from ratchet_api.datasets import WeightedDataset
from ratchet_api.rewards import REWARDS, Reward
from ratchet_api.rewards import RULES as REWARD_RULES
from ratchet_api.sampling import CORRECTION, Sampling

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
SFT_METRICS = ("train/loss", "train/tokens")
RL_METRICS = (
    "train/accuracy",
    "train/reward",
    "train/loss",
    "train/entropy",
    "train/unsolved",
    "train/solved",
    "train/informative",
    "train/truncated",
    "train/unparsable",
    "train/verifier_failures",
    "train/response_tokens",
    "train/clip_fraction",
    "train/clip_fraction_low",
    "train/clip_fraction_high",
    "train/logprob_mismatch",
    "train/importance_ratio",
    "train/kl",
    "train/value_loss",
    "train/scored_rollouts",
    "train/active_items",
    "train/exhausted",
    "train/rounds",
    "train/dropped_right",
    "train/dropped_wrong",
    "train/surplus",
    "train/hinted",
    "train/unhelped",
    "train/hint_rollouts",
)
SHORT_NAMES = {name.removeprefix("train/"): name for name in RL_METRICS}
CONDITIONAL = (
    # metric, when an rl stage emits it (in CEL and here), and what brings it
    (
        "train/kl",
        drift.REFERENCE_CEL.format("self.rl"),
        drift.has_reference,
        "train/kl needs a reference; set rl.reference {kind: frozen} or rl.kl",
    ),
    (
        "train/value_loss",
        methods.CRITIC_CEL.format("self.rl"),
        methods.has_critic,
        "train/value_loss needs a critic; take rl.method ppo or rl.advantage {estimator: gae}",
    ),
    (
        "train/scored_rollouts",
        selections.KIND_CEL.format("self.rl") + " == 'learnability'",
        lambda rl: selections.kind(rl) == "learnability",
        "train/scored_rollouts needs rl.selection {kind: learnability} (methods sfl and lilo)",
    ),
    *(
        (
            metric,
            selections.KIND_CEL.format("self.rl") + " in ['historyResampling', 'difficultyBand']",
            lambda rl: selections.kind(rl) in ("historyResampling", "difficultyBand"),
            f"{metric} needs rl.selection {{kind: historyResampling}} (method srpo) or {{kind: difficultyBand}}",
        )
        for metric in ("train/active_items", "train/exhausted")
    ),
    *(
        (
            metric,
            expansions.KIND_CEL.format("self.rl") + " == 'dynamicSampling'",
            lambda rl: expansions.kind(rl) == "dynamicSampling",
            f"{metric} needs rl.expansion {{kind: dynamicSampling}} (method dapo)",
        )
        for metric in ("train/rounds", "train/dropped_right", "train/dropped_wrong", "train/surplus")
    ),
    *(
        (
            metric,
            expansions.KIND_CEL.format("self.rl") + " == 'hints'",
            lambda rl: expansions.kind(rl) == "hints",
            f"{metric} needs rl.expansion {{kind: hints}} (method scaf-grpo)",
        )
        for metric in ("train/hinted", "train/unhelped", "train/hint_rollouts")
    ),
)


def emits_always(name: str) -> bool:
    """Whether an rl stage may have this metric: its own, or what an evaluation or a reward's part says."""
    return name in RL_METRICS or name.startswith(("evaluation/", "reward/"))


def full_metric(name: str) -> str:
    """The full name of a metric: `accuracy` means `train/accuracy`."""
    return SHORT_NAMES.get(name, name)


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

    @property
    def mixture(self) -> list[WeightedDataset]:
        """What prompts are drawn from, with their weights."""
        return self.datasets or [WeightedDataset(name=self.dataset or "")]


METRIC_TEXT = (
    "Metric to watch; short names mean train/..., so accuracy is train/accuracy. evaluation/NAME/accuracy is what the "
    "evaluation of that name says, reward/NAME the mean of a reward's part."
)
Patience = Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(as_whole)]


class Plateau(ApiModel):
    """A metric that no longer rises."""

    patience: Patience = Field(description="Latest values of which none is better than the one before them.")
    min_delta: Decimal = Field(default="0", description="A value is better if it is above by more than this.")


class Stall(ApiModel):
    """A metric that no longer changes: its largest and smallest value are equal but for minDelta."""

    patience: Patience = Field(description="Values of the metric that are looked at.")
    min_delta: Decimal = Field(default="0", description="Largest difference that counts as none.")


class When(ApiModel):
    """One way for a stage to be over: a metric's mean over a window reaches a bound, or it no longer moves."""

    rules: ClassVar = (
        Rule(
            "(has(self.atLeast) ? 1 : 0) + (has(self.atMost) ? 1 : 0) + (has(self.plateau) ? 1 : 0) + "
            "(has(self.stall) ? 1 : 0) == 1",
            "give exactly one of atLeast, atMost, plateau and stall",
            lambda w: sum(x is not None for x in (w.at_least, w.at_most, w.plateau, w.stall)) == 1,
        ),
    )
    metric: str = Field(max_length=128, pattern=METRIC_PATTERN, description=METRIC_TEXT)
    at_least: Decimal | None = Field(default=None, description="The rule holds when the mean is at least this.")
    at_most: Decimal | None = Field(default=None, description="The rule holds when the mean is at most this.")
    window: Whole = whole(
        "Number of latest steps in this stage that the mean is over; false until there are that many.",
        ge=1,
        le=10_000,
        default=1,
    )
    plateau: Plateau | None = Field(default=None, description="The rule holds when the metric no longer rises.")
    stall: Stall | None = Field(default=None, description="The rule holds when the metric no longer changes.")


class Guard(ApiModel):
    """A bound that a metric's mean must keep to while a stage trains."""

    rules: ClassVar = (
        Rule(
            "has(self.atLeast) != has(self.atMost)",
            "give exactly one bound: atLeast or atMost",
            lambda g: (g.at_least is None) != (g.at_most is None),
        ),
    )
    metric: str = Field(max_length=128, pattern=METRIC_PATTERN, description=METRIC_TEXT)
    at_least: Decimal | None = Field(default=None, description="The guard trips when the mean is at least this.")
    at_most: Decimal | None = Field(default=None, description="The guard trips when the mean is at most this.")
    window: Whole = whole("Latest values of the metric that the mean is over.", ge=1, le=10_000, default=1)
    action: Literal["Fail", "Approval", "Advance"] = Field(
        default="Fail",
        description="Fail: the job ends as failed. Approval: the stage is over and the next one waits for an entry in "
        "spec.approvals. Advance: the stage is over.",
    )


class Advance(ApiModel):
    """When a stage is over."""

    rules: ClassVar = (
        Rule(
            "self.minSteps <= self.steps",
            "minSteps is larger than steps, so no rule could ever hold",
            lambda a: a.min_steps <= a.steps,
        ),
    )
    steps: Whole = whole("Hard limit: the stage is over after this many steps.", ge=1, le=100_000_000)
    min_steps: Whole = whole("No rule is looked at before this many steps.", ge=0, le=100_000_000, default=0)
    when: list[When] = Field(
        default=[], max_length=16, description="Any of these suffices; the first in order wins and is recorded."
    )
    at_limit: Literal["Advance", "Fail", "Approval"] = Field(
        default="Advance",
        description="What to do when `steps` is reached though rules were given and none held. Approval: the next "
        "stage waits for an entry in spec.approvals.",
    )
    approval: Literal["None", "Manual"] = Field(
        default="None",
        description="Manual: whatever ended this stage, the next one waits for an entry in spec.approvals.",
    )


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
        description="Where the stage before had a critic, too: whether it goes on, optimizer included. Else, a critic "
        "starts from the policy's weights.",
    )


class Stage(ApiModel):
    """One stage of the curriculum."""

    rules: ClassVar = (
        Rule(
            "has(self.sft) != has(self.rl)",
            "a stage trains in exactly one way: sft or rl",
            lambda s: (s.sft is None) != (s.rl is None),
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
        """Data sets that it trains on."""
        return [self.sft.dataset] if self.sft is not None else [d.name for d in self.rl.mixture] if self.rl else []

    name: Name = Field(description="Name of the stage, shown in status and metrics.")
    sft: Sft | None = Field(default=None, description="Supervised fine-tuning.")
    rl: Rl | None = Field(default=None, description="Reinforcement learning.")
    advance: Advance = Field(description="When the stage is over.")
    guards: list[Guard] = Field(
        default=[], max_length=16, description="Bounds that metrics must keep to while the stage trains."
    )
    start: Start = Field(default=Start(), description="What the stage begins with.")


STAGES = Field(
    min_length=1, max_length=64, json_schema_extra=LIST_MAP, description="The curriculum: stages in the order they run."
)
