"""Sampling by a fleet of workers, with the store as the only thing between them and the trainer."""
