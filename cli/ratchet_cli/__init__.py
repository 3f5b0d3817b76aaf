"""The `ratchet` command, also installed as the kubectl plugin `kubectl ratchet`."""
