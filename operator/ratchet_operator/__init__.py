"""The Ratchet operator: observes RLTrainingJobs, decides, applies."""
