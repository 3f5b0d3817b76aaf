"""The Ratchet trainer: reinforcement learning in JAX that resumes bit for bit."""
