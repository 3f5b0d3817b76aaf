"""What survives: the journal, steps on disk, digests, identity, compiled programs."""
