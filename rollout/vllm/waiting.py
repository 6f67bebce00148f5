"""Requests that wait for a slot of vLLM's: in which order, and when they are let in.

Left out: the slots and what runs in them (loop.py).
"""

from __future__ import annotations

import heapq
import itertools

from rlpost.rollout.vllm.requests import Sampling

GATHERED = 16
"""Requests are let in by this part of those that run, together: a step that has prompts to compute besides takes a GPU
much longer than one that only samples, which is a single CUDA graph. A slot is then empty for half as many steps as it
takes that part of the requests to end, 1/32 of a request's time."""
PATIENCE = 8
"""Steps that a request waits for others to be let in with."""


class Waiting:
    """A queue in the order of arrival, or of ``order``.

    Args:
        ordered: requests leave in their ``order``, and as soon as there is a slot.
    """

    def __init__(self, ordered: bool) -> None:
        self._ordered = ordered
        self._queue: list[tuple[int, int, Sampling]] = []
        self._arrivals = itertools.count()
        self._held = 0  # steps since somebody with a slot was first held back

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, sampling: Sampling) -> None:
        """One that has just come."""
        order = sampling.request.order if self._ordered else 0
        heapq.heappush(self._queue, (order, next(self._arrivals), sampling))

    def next(self) -> Sampling:
        """The first leaves."""
        return heapq.heappop(self._queue)[2]

    def remove(self, request_id: str) -> Sampling:
        """One of them leaves out of turn."""
        entry = next(entry for entry in self._queue if entry[2].request.id == request_id)
        self._queue.remove(entry)
        heapq.heapify(self._queue)
        return entry[2]

    def gathered(self, running: int, slots: int) -> bool:
        """Whether those that have a slot are let in before this step; asked once a step."""
        many = min(len(self), slots - running)
        let_in = self._ordered or many >= running // GATHERED or self._held >= PATIENCE
        self._held = 0 if let_in or not many else self._held + 1
        return let_in
