"""What can go wrong with a model before training starts.

Left out: what goes wrong later (``LearnerError``, batch.py).
"""

from __future__ import annotations


class ModelError(ValueError):
    """The model of the recipe cannot be found, read or built; the message names the recipe key and what to do."""


class ModelRefused(ModelError):
    """The model loads, but the learner cannot compute its log-probabilities exactly; the message says why."""
