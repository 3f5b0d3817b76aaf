"""Commands beside training: runs on this machine, proofs, evaluation, inspection."""
