"""Which parts `rl.rewards` names: a table from what a manifest says to what computes it.

A new part is a row here and a function of a case (`text`) or of a group. Decides nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ratchet_api.rewards import Reward
from ratchet_api.verifiers import HttpVerifier, reward_secret_variable
from ratchet_trainer.algorithm.rewards.accuracy import Accuracy
from ratchet_trainer.algorithm.rewards.correct_prefix import CorrectPrefix
from ratchet_trainer.algorithm.rewards.length import Cosine, Overlong, Unfinished
from ratchet_trainer.algorithm.rewards.text import OfText, TextPart, form, language
from ratchet_trainer.algorithm.rewards.weight import Weight
from ratchet_trainer.algorithm.rewards.weighted import Weighted
from ratchet_trainer.algorithm.slots import RewardPart
from ratchet_trainer.algorithm.verifiers import steps
from ratchet_trainer.algorithm.verifiers.registry import http_spec, python_spec
from ratchet_trainer.algorithm.verifiers.spec import VerifierSpec

PARTS: Mapping[str, Callable[[Reward], RewardPart]] = {
    # field of the manifest that a reward has -> its part
    "format": lambda r: OfText(r.name),
    "language": lambda r: OfText(r.name),
    "python": lambda r: OfText(r.name),
    "correct_prefix": lambda r: CorrectPrefix.of_settings(r.name, r.correct_prefix),  # type: ignore[arg-type]
    "length": lambda r: Overlong(r.name, r.length.buffer) if r.length.buffer else Cosine(r.name),  # type: ignore[union-attr]
    "unfinished": lambda r: Unfinished(r.name, float(r.unfinished.value)),  # type: ignore[union-attr]
}
TEXT: Mapping[str, Callable[[Reward], TextPart]] = {
    # field -> what is computed where a response is verified
    "format": lambda r: form(r.name, r.format),  # type: ignore[arg-type]
    "language": lambda r: language(r.language.script),  # type: ignore[union-attr]
}


def rewards_of(rewards: Sequence[Reward]) -> Weighted:
    """The rewards slot of a stage; without any, accuracy alone."""
    return Weighted([(Weight.of(r), _part(r)) for r in rewards] or [(Weight(1.0), Accuracy())])


def text_parts(rewards: Sequence[Reward]) -> dict[str, TextPart]:
    """Name -> function, of the parts that read a response's text. Raises ConfigurationInvalid."""
    return {r.name: make(r) for r in rewards for kind, make in TEXT.items() if getattr(r, kind) is not None}


def asked_of(stage: int, rewards: Sequence[Reward]) -> dict[str, VerifierSpec]:
    """Name -> what runs the user's own function or asks an endpoint, of the parts whose value is somebody's word.
    `stage`: the index of the stage."""
    found = {}
    for reward in rewards:
        if (told := reward.checker) is None:
            continue
        if isinstance(told, HttpVerifier):
            spec = http_spec(told, reward_secret_variable(stage, reward.name))
        else:
            spec = python_spec(told.entrypoint, told.config_map, told.pure, told.timeout_seconds, told.memory_mi_b)
        found[reward.name] = (
            spec if reward.correct_prefix is None else steps.checking(spec, reward.correct_prefix.steps)
        )
    return found


def of_wrong_responses(rewards: Sequence[Reward]) -> frozenset[str]:
    """Names of the parts that nobody asks about right responses: these earn nothing by them."""
    return frozenset(reward.name for reward in rewards if reward.correct_prefix is not None)


def _part(reward: Reward) -> RewardPart:
    for kind, make in PARTS.items():
        if getattr(reward, kind) is not None:
            return make(reward)
    return Accuracy(reward.name, reward.of or "accuracy")
