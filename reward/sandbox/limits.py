"""What a program may use, and what became of it: the records that cross the sandbox's border.

Left out: how the limits are enforced (``inside``) and how a program gets there (``launcher``).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum


class SandboxUnavailable(RuntimeError):
    """This host gives no isolation, so model-written code is refused; the message says why and what to do."""


class SandboxError(RuntimeError):
    """The sandbox's own machinery failed; nothing is known of the program, and nothing is assumed."""


class Reason(StrEnum):
    """Why a program (or a block of a session) ended."""

    OK = "ok"
    ERROR = "error"  # an uncaught exception, or a non-zero exit
    TIMEOUT = "timeout"  # wall clock
    CPU = "cpu"
    MEMORY = "memory"
    PROCESSES = "processes"
    OUTPUT = "output"
    KILLED = "killed"  # by a signal that none of the limits above sent
    REFUSED = "refused"  # never started: not text that can be sent, or too long


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one program, or of one session.

    Attributes:
        wall_s: seconds of wall clock, for a program or for each block of a session. A busy machine makes programs
            slower by it: where a verdict hangs on it, give several times ``cpu_s``.
        cpu_s: seconds of processor time of all its processes together; of a whole session (``Session.execute`` bounds
            a block).
        memory_mib: MiB beyond the interpreter's own: address space of each process, and of all processes together
            resident memory (a page shared after a fork counts in each) and what their pipes and sockets may hold.
        processes: processes and threads at once, the program's own included.
        output_bytes: standard output and error together; in a session, of each block.
        file_bytes: total size of the files in its scratch folder.
        call_bytes: what all calls of one block of a session send to the parent, which holds it; each counts for 512
            bytes more than its text, so that this bounds their number too.

    Raises:
        ValueError: a limit is not positive.
    """

    wall_s: float = 10.0
    cpu_s: float = 10.0
    memory_mib: int = 512
    processes: int = 32
    output_bytes: int = 1 << 20
    file_bytes: int = 16 << 20
    call_bytes: int = 8 << 20

    def __post_init__(self) -> None:
        for bound in fields(self):
            value = getattr(self, bound.name)
            if not value > 0:
                raise ValueError(f"sandbox limit {bound.name} must be above 0, not {value}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a program.

    Attributes:
        reason: why it ended.
        stdout, stderr: what it wrote, as text (undecodable bytes replaced), cut at ``Limits.output_bytes``.
        exit_code: its exit status, or None where a signal or a limit ended it.
        signal: the signal that ended it, or None.
        wall_s: seconds from its start to the death of its last process.
        detail: one line for a person, where the reason alone does not say enough.
        cpu_s, memory_mib: what its keeper saw it use at most, looking every 20 ms or more often (of a whole session,
            and 0 for a block that did not end it): seconds of processor time, and MiB as ``Limits`` counts them.
    """

    reason: Reason
    stdout: str = ""
    stderr: str = ""
    exit_code: int | None = None
    signal: int | None = None
    wall_s: float = 0.0
    detail: str = ""
    cpu_s: float = 0.0
    memory_mib: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it ran to its end and exited with 0."""
        return self.reason is Reason.OK
