"""Pure: the Kubernetes objects of an attempt, as plain data."""
