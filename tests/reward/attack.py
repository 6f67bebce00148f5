"""What an attack is: a program, and the end it must come to. The tables: ``attacks_excess``, ``attacks_escape``.

A program that succeeds prints ESCAPED (and then the test fails). ``@SECRET@``, ``@FOLDER@``, ``@PORT@`` and ``@PID@``
stand for a host file, the folder it lies in, a port the host listens on, and the host's process id.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace

from rlpost.reward.sandbox import Limits, Reason

ROOMY = Limits(wall_s=30, cpu_s=20, memory_mib=256, processes=16, output_bytes=1 << 16, file_bytes=4 << 20)
BRIEF = replace(ROOMY, wall_s=1)
FRUGAL = replace(ROOMY, cpu_s=1)


@dataclass(frozen=True)
class Attack:
    """``ends``: the reasons allowed; ``says``: what standard output and error together must contain."""

    name: str
    program: str
    ends: frozenset[Reason]
    says: str = ""
    limits: Limits = ROOMY


def attack(name: str, program: str, *ends: Reason, says: str = "", limits: Limits = ROOMY) -> Attack:
    """An attack whose program may be an indented block of text."""
    return Attack(name, textwrap.dedent(program).strip("\n"), frozenset(ends), says, limits)
