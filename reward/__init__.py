"""Verifiers: what turns a model's answer into a number. The lowest layer: imports none of the others."""
