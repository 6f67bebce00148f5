"""What error messages are made of: the nearest known name, and values short enough to be read.

Left out: which errors there are (every part has its own).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or a list of what is known."""
    known = sorted(known)
    near = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known) or 'none'}"


def shortened(text: str, most: int = 80) -> str:
    """The text, or its beginning where it is long."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def shown(value: object) -> str:
    """A value as a message gives it back."""
    try:
        return shortened(repr(value))
    except (ValueError, RecursionError):  # integers beyond Python's limit, values that hold themselves
        return f"a {type(value).__name__} too large to print"
