"""One process of an attempt: agreement with the others, signals, progress, the stage gate."""
