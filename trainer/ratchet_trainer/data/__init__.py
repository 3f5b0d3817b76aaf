"""Where prompts and answers come from, and how text becomes tokens."""
