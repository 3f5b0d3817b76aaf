"""Verifiers: whether a response answers its item. `registry` knows all of them; a file each says one's rules."""
