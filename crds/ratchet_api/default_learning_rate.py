"""What an absent learning rate stands for.

A rate that suits random weights destroys trained ones: at 0.001 a pretrained model of 135M parameters repeats one word
after two updates. So the model and the kind of stage decide.
"""

from __future__ import annotations

from ratchet_api.job import Model
from ratchet_api.stages import Stage

FROM_RANDOM = "0.001"
FROM_TRAINED = {"rl": "0.000001", "sft": "0.00002"}
"""The defaults of TRL's GRPOConfig and SFTConfig."""
FOR_ADAPTERS = {"rl": "0.00001", "sft": "0.0002"}
"""Ten times as much, as TRL's page on adapters has it."""


def peak_learning_rate(stage: Stage, model: Model) -> str:
    """The peak learning rate of a stage that trains, a decimal string: the manifest's, or the one for such a model."""
    settings = stage.rl or stage.sft
    assert settings is not None, "the type's rules"
    if settings.optimizer.learning_rate is not None:
        return settings.optimizer.learning_rate
    if model.path is None:
        return FROM_RANDOM
    return (FROM_TRAINED if model.lora is None else FOR_ADAPTERS)["rl" if stage.rl is not None else "sft"]
