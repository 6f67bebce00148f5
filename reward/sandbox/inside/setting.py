"""The two records that are handed down from zygote to keeper to init to program.

Left out: behaviour, but for letting go of every descriptor that is not in such a record.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Site:
    """What the zygote prepared once.

    Attributes:
        isolated: false only where there is no isolation and the user accepted that.
        user_namespaces: whether a program gets a user namespace of its own.
        proc: descriptor of the host's /proc; programs never have it.
        address_space, resident: bytes the bare interpreter takes.
    """

    isolated: bool
    user_namespaces: bool
    proc: int
    address_space: int
    resident: int


@dataclass(frozen=True, slots=True)
class Ends:
    """Descriptors of one program: the host's channel, the writing ends of its output and error, and of the verdict."""

    channel: int
    out: int
    err: int
    verdict: int


def close_all_but(*kept: int) -> None:
    """Close every descriptor above 2 that is not named."""
    start = 3
    for descriptor in sorted(kept):
        os.closerange(start, descriptor)
        start = max(start, descriptor + 1)
    os.closerange(start, 1 << 20)
