"""A reward with a spread, for policies with random weights. Left out: meaning."""

from __future__ import annotations


def distinct(prompts: list, completions: list, **columns: object) -> list[float]:
    """The share of distinct characters."""
    return [len(set(str(completion))) / 32 for completion in completions]
