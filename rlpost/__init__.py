"""The runtime: what turns a recipe into a trained model. The roof; nobody imports it."""

__version__ = "0.1.0"
