"""The experiments of `bench/learning.py`: one row each.

A row names the task, what all variants share, what each changes, and the accuracy that counts as learned. Adding an
experiment is adding a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from measuring.noisy_chain import Chain, Kind

Plain = dict[str, Any]


@dataclass(frozen=True)
class Experiment:
    """`rl`: settings of the rl stage that all variants share; `variants`: name -> what one changes, the first is what
    the others are compared with. `shares`: of the training set, by kind of operator. `target`: held-out accuracy.
    `values`: whether values of states are compared with what these are worth, too.
    """

    name: str
    question: str
    chain: Chain
    rl: Plain
    variants: Mapping[str, Plain]
    target: float
    steps: int = 100
    shares: Mapping[Kind, float] = field(default_factory=lambda: {"noisy": 1.0})
    items: int = 4000
    hints: tuple[str, ...] = ()
    seeds: int = 5
    values: bool = False


SLOW = "0.0003"
"""Learning rate where a step may learn from one or two prompts: with 0.001 Adam makes noise of their gradients."""


def shape(prompts: int, samples: int, rate: str = "0.001") -> Plain:
    return {"promptsPerStep": prompts, "groupSize": samples, "optimizer": {"learningRate": rate}}


def drift(reference: Plain) -> Plain:
    """GRPO without the deviation and with a strong drift term, which is what the resets are there for."""
    penalty = {"estimator": "k3", "in": "loss", "coefficient": "0.8"}
    return {"method": "grpo", "advantage": {"estimator": "mean"}, "kl": penalty, "reference": reference}


def by_steps(**settings: str) -> Plain:
    """A part of the reward for the right steps of a wrong response."""
    return {"correctPrefix": {"python": {"entrypoint": "chain_steps:check", "configMap": "chain-steps"}, **settings}}


MOSTLY_IMPOSSIBLE: Mapping[Kind, float] = {"impossible": 0.9, "sure": 0.05, "noisy": 0.05}
MOSTLY_SOLVED: Mapping[Kind, float] = {"sure": 0.8, "noisy": 0.2}
LEARNABILITY = "learnability"

EXPERIMENTS = (
    Experiment(
        "deviation",
        "Does dividing by the group's deviation pay?",
        Chain(4, 0.6),
        shape(8, 8, SLOW),
        {"grpo": {"method": "grpo"}, "dr-grpo": {"method": "dr-grpo"}},
        target=0.5,
        seeds=2,
    ),
    Experiment(
        "hints",
        "Do hints and correct prefixes teach what is never answered right? (k = 8, q^k = 0.00007)",
        Chain(8, 0.3),
        shape(16, 8, SLOW),
        {
            "grpo": {"method": "grpo"},
            "scaf-grpo": {"method": "scaf-grpo", "expansion": {"kind": "hints", "text": "{hint}", "exemptSteps": 15}},
            "sgpo": {"method": "sgpo", "rewards": [{"name": "accuracy"}, {"name": "prefix", **by_steps()}]},
            "sgpo-every-wrong": {
                "method": "sgpo",
                "rewards": [{"name": "accuracy"}, {"name": "prefix", **by_steps(scope="wrongResponses")}],
            },
        },
        target=0.2,
        hints=("scaf-grpo",),
    ),
    Experiment(
        "mostly-impossible",
        "Is the time of a set that is mostly impossible better spent on what is learnable?",
        Chain(4, 0.6, sure=3, impossible=5),
        {"method": "grpo", **shape(8, 8, SLOW)},
        {
            "uniform": {},
            "lilo": {"selection": {"kind": LEARNABILITY}},
            "lilo-reuse": {"selection": {"kind": LEARNABILITY, "reuse": True}},
            "sfl": {"selection": {"kind": LEARNABILITY, "buffer": {"everySteps": 10}}},
            "dynamic-sampling": {"expansion": {"kind": "dynamicSampling"}},
        },
        target=0.5,
        steps=120,
        shares=MOSTLY_IMPOSSIBLE,
    ),
    Experiment(
        "mostly-solved",
        "Does leaving out what is solved save rollouts?",
        Chain(4, 0.6, sure=5),
        {"method": "grpo", **shape(8, 8, SLOW)},
        {"grpo": {}, "history": {"selection": {"kind": "historyResampling"}}},
        target=0.7,
        steps=200,
        shares=MOSTLY_SOLVED,
        items=320,  # an epoch is 40 steps, so that history has something to say
    ),
    Experiment(
        "resets",
        "Does a reference that is renewed go on where a fixed one holds back?",
        Chain(4, 0.56),
        shape(8, 8),
        {
            "frozen": drift({"kind": "frozen"}),
            "reset": drift({"kind": "scheduled", "everySteps": 50, "optimizer": "reset"}),
        },
        target=0.25,
        steps=200,
    ),
    Experiment(
        "lag",
        "What does it cost to sample ahead of learning, as a rollout fleet does?",
        Chain(4, 0.6),
        {"method": "grpo", **shape(8, 8, SLOW)},
        {"lag-0": {}, "lag-1": {"rollouts": {"lag": 1}}, "lag-2": {"rollouts": {"lag": 2}}},
        target=0.5,
    ),
    Experiment(
        "values",
        "Are sampled values better than a critic's?",
        Chain(4, 0.6),
        shape(8, 8, SLOW),
        {
            "ppo": {"method": "ppo"},
            "vineppo": {
                "method": "vineppo",
                "advantage": {"vine": {"steps": "tokens", "stepTokens": 1, "continuations": 9}},
            },
        },
        target=0.5,
        values=True,
    ),
)
