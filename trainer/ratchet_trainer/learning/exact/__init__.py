"""Mode Exact: the same bits on any number of devices."""

from ratchet_trainer.learning.exact.critic import ExactCritic
from ratchet_trainer.learning.exact.learner import ExactLearner
from ratchet_trainer.learning.exact.sampler import ExactSampler
from ratchet_trainer.learning.exact.virtual_shards import VirtualShards

__all__ = ["ExactCritic", "ExactLearner", "ExactSampler", "VirtualShards"]
