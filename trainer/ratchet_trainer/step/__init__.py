"""One step of a stage, and what it leaves: state, updates, advance rule, metrics, commits."""
