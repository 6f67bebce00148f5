"""How one episode comes to an early end. Caught where the episode is played; no other episode notices.

Left out: faults of a whole worker (the runtime's).
"""

from __future__ import annotations

from rlpost.rollout.trajectory import StopReason


class EpisodeFault(Exception):
    """The episode is lost or was called off.

    Attributes:
        stop: the stop reason to record.
    """

    def __init__(self, stop: StopReason, message: str) -> None:
        super().__init__(message)
        self.stop = stop
