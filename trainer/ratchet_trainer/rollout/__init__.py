"""Making rollouts: what is asked for, how it is sampled, who judges it."""
