"""The parts of `ratchet demo`: what is disturbed when, what is watched, what is proved, what is shown."""
