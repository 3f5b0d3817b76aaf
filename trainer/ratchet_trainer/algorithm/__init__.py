"""What an algorithm is: the six slots, their choices, and the table of methods."""
