"""Cutting an observation down to a token budget, at a line or word break where one is near.

Left out: templates (chat.py) and the context limit (episode.py).
"""

from __future__ import annotations

from collections.abc import Callable

NOTICE = "\n[... truncated]"
CHARACTERS_PER_TOKEN = 256
"""No tokenizer's token is longer than this, so text beyond ``budget`` times this need not be tokenized at all."""


def truncate(text: str, budget: int, encode: Callable[[str], list[int]], decode: Callable[[list[int]], str]) -> str:
    """``text`` itself where it has at most ``budget`` tokens, else its beginning and a short notice, together within
    the budget. Where the notice alone would not fit, the beginning alone.

    Args:
        text: the observation.
        budget: tokens the result may have, >= 1.
        encode, decode: text to token ids without special tokens, and back.
    """
    if len(text.encode(errors="replace")) <= budget:
        return text  # a token is at least a byte
    head = text[: budget * CHARACTERS_PER_TOKEN]
    ids = encode(head)
    if len(head) == len(text) and len(ids) <= budget:
        return text
    notice = NOTICE if len(encode(NOTICE)) < budget else ""
    room = budget - len(encode(notice))
    # A cut inside a character decodes to a replacement mark; the count of whole characters is what is wanted.
    kept = _at_a_break(head[: len(decode(ids[:room]).rstrip("\ufffd"))])
    while len(encode(kept + notice)) > budget:
        kept = kept[: len(kept) * 9 // 10]  # rare: text tokenizes differently next to the notice
    return kept + notice


def _at_a_break(text: str) -> str:
    """Back to the last newline, or else space, of the second half; the text itself where that half has none."""
    for separator in ("\n", " "):
        position = text.rfind(separator)
        if position > len(text) // 2:
            return text[:position]
    return text
