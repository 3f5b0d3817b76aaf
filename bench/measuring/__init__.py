"""What the benchmarks of whole runs share: the work, and how a run is made and read."""
