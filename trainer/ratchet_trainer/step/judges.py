"""What a stage asks of every response, from its part of the manifest: verifiers, parts of the text, own functions."""

from __future__ import annotations

from ratchet_api import stages as api
from ratchet_api.job import Spec
from ratchet_trainer.algorithm.rewards.registry import asked_of, of_wrong_responses, text_parts
from ratchet_trainer.algorithm.verifiers.registry import resolve
from ratchet_trainer.rollout.verification import Judges


def judges_of(spec: Spec, stage: api.Stage) -> Judges:
    """Of an rl stage. Raises ConfigurationInvalid for a task or a pattern that cannot be used."""
    assert stage.rl is not None, "asked of rl stages"
    index = next(i for i, one in enumerate(spec.stages) if one.name == stage.name)
    verifiers = [resolve(spec.dataset(name)) for name in stage.dataset_names]
    rewards = stage.rl.rewards
    return Judges(verifiers, text_parts(rewards), asked_of(index, rewards), of_wrong_responses(rewards))
