"""The metrics that a stage says of itself, and what some of them need.

Decides names. How they are computed is the trainer's matter (`ratchet_trainer/step/step_metrics.py`); which rule may
wait for which is checked where a rule stands (`stages`, `references`).
"""

from __future__ import annotations

from ratchet_api import drift
from ratchet_api import expansion as expansions
from ratchet_api import method as methods
from ratchet_api import selection as selections

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
    "train/staleness",
    "train/importance_capped",
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
    *(
        (
            metric,
            "has(self.rl.rollouts) && has(self.rl.rollouts.lag) && self.rl.rollouts.lag > 0",
            lambda rl: rl.lag > 0,
            f"{metric} needs rl.rollouts.lag: without it every rollout comes from the newest weights",
        )
        for metric in ("train/staleness", "train/importance_capped")
    ),
)


def emits_always(name: str) -> bool:
    """Whether an rl stage may have this metric: its own, or what an evaluation or a reward's part says."""
    return name in RL_METRICS or name.startswith(("evaluation/", "reward/"))


def full_metric(name: str) -> str:
    """The full name of a metric: `accuracy` means `train/accuracy`."""
    return SHORT_NAMES.get(name, name)
