"""The learner: the single copy of the model, and everything that touches it."""
