"""What a check of ``rlpost doctor`` found: one record. Left out: how it is shown (rlpost/doctor.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what was looked at, in a word or two.
        found: what is there.
        wanted: what should be there.
        level: ``note`` where it works, but slower or with less; ``problem`` where a run would fail.
        advice: what to do about it; empty where all is well.
    """

    name: str
    found: str
    wanted: str
    level: Level = "ok"
    advice: str = ""
