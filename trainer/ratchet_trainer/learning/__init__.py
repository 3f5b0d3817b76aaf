"""What changes weights: compiled programs, optimizer, critic."""
