"""What each token of a sequence looks like to a reader, one string a token.

Left out: tokenizing. These strings are for display; nothing is ever trained on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
LONGEST_CHARACTER = 4
"""Bytes of the longest UTF-8 character, hence tokens it may be split over."""


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str: ...

    def convert_ids_to_tokens(self, ids: int) -> str: ...


class TokenDisplay:
    """Calls give one display string a token id; joined they are the decoded text.

    Tokens decode one by one, each id once. Two repairs: a character split over several tokens is shown whole at its
    first token and leaves the others empty, and the leading space that SentencePiece drops from a lone token is put
    back.

    Args:
        tokenizer: a Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._pieces: dict[int, str] = {}

    def __call__(self, token_ids: Sequence[int]) -> list[str]:
        """``len(token_ids)`` strings."""
        pieces = [self._piece(token) for token in token_ids]
        for start, piece in enumerate(pieces):
            if piece.endswith(UNFINISHED):
                self._join_character(list(token_ids), pieces, start)
        return pieces

    def _join_character(self, token_ids: list[int], pieces: list[str], start: int) -> None:
        for end in range(start + 2, min(start + LONGEST_CHARACTER, len(pieces)) + 1):
            text = self._decode(token_ids[start:end])
            if UNFINISHED not in text:
                pieces[start:end] = [text] + [""] * (end - start - 1)
                return

    def _piece(self, token: int) -> str:
        if token not in self._pieces:
            text = self._decode([token])
            name = self._tokenizer.convert_ids_to_tokens(token) or ""
            if name.startswith("\u2581") and not text.startswith(" "):
                text = " " + text
            self._pieces[token] = text
        return self._pieces[token]

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
