"""A real Kubernetes control plane on this machine, with node agents that look like GKE TPU nodes."""
