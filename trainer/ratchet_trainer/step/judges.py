"""What a stage asks of every response, from its part of the manifest: verifiers, parts of the text, own functions."""

from __future__ import annotations

from ratchet_api import stages as api
from ratchet_api.job import Spec
from ratchet_trainer.algorithm.rewards.registry import reward_verifier, text_parts
from ratchet_trainer.algorithm.verifiers.registry import resolve
from ratchet_trainer.rollout.verification import Judges


def judges_of(spec: Spec, stage: api.Stage) -> Judges:
    """Of an rl stage. Raises ConfigurationInvalid for a task or a pattern that cannot be used."""
    assert stage.rl is not None, "asked of rl stages"
    own = {r.name: reward_verifier(r) for r in stage.rl.rewards if r.python is not None}
    verifiers = [resolve(spec.dataset(name)) for name in stage.dataset_names]
    return Judges(verifiers, text_parts(stage.rl.rewards), own)
