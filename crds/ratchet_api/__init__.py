"""The types of the RLTrainingJob API and everything derived from them."""
