"""The runtime: what turns a recipe into a trained model. The highest layer: no other imports it."""

__version__ = "0.1.0"
