"""A reward with a spread, for policies with random weights. Left out: meaning."""

from __future__ import annotations

import zlib


def spread(prompts: list, completions: list, **columns: object) -> list[float]:
    """Anything between 0 and 1, as good as random, but the same for the same text."""
    return [zlib.crc32(str(completion).encode()) / 2**32 for completion in completions]
