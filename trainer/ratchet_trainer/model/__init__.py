"""The policy: one decoder for sampling, log-probabilities and training."""
