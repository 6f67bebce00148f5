"""Verifiers: what turns a model's answer into a number. The ground floor; imports nothing of the house."""
