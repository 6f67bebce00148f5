"""A bound on how many episodes are in flight, which lets those waiting through in their order.

Left out: asyncio.Semaphore, which serves first come, first served.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools


class OrderedGate:
    """At most ``size`` inside at once; of those that wait, the one with the lowest order is next.

    Everything that can be admitted is admitted on the event loop's next turn, so that calls which arrive together are
    sorted before the first of them goes in.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(not future.done() for _, _, future in self._waiting)

    async def enter(self, order: int, cut: asyncio.Future[None]) -> bool:
        """Wait for a place; false where ``cut`` was done first (then there is nothing to leave)."""
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        heapq.heappush(self._waiting, (order, next(self._numbers), place))
        loop.call_soon(self._admit)
        try:
            await asyncio.wait({place, cut}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._withdraw(place)
            raise
        if cut.done():
            self._withdraw(place)
            return False
        return True

    def leave(self) -> None:
        """Free one place."""
        self._free += 1
        self._admit()

    def _withdraw(self, place: asyncio.Future[None]) -> None:
        if place.done():
            self.leave()
        else:
            place.cancel()

    def _admit(self) -> None:
        while self._waiting and (self._free > 0 or self._waiting[0][2].done()):
            place = heapq.heappop(self._waiting)[2]
            if not place.done():
                self._free -= 1
                place.set_result(None)
