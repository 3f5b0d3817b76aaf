"""What the API server calls the one kind: group, version, kind and plural. Cheap to import: no types."""

GROUP = "ratchet.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "RLTrainingJob"
PLURAL = "rltrainingjobs"
