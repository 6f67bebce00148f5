"""Environments: one object is one episode. Knows rewards below it; knows nothing of engines or training."""
