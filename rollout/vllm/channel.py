"""What a worker and its engine's process share: messages both ways, and arrays too large for a message.

Left out: what the messages mean (process.py on the worker's side, served.py on the engine's).
"""

from __future__ import annotations

import mmap
import os
import queue
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

ALIGNMENT = 64
"""Bytes; arrays start at multiples of it."""


class Place(NamedTuple):
    """Where an array lies: its dtype, its shape and its offset in bytes."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


class Channel:
    """One end of a stream of pickled messages. Posting never blocks; what piles up meanwhile goes in one piece.

    Args:
        descriptor: of a connected stream socket, which is closed with the channel.
        receive: called with each message, on a thread of the channel's.
        lost: called on that thread when the other end is gone.
    """

    def __init__(self, descriptor: int, receive: Callable[[Any], None], lost: Callable[[], None]) -> None:
        self._connection = Connection(descriptor)
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._receive, self._lost = receive, lost
        self._sender = threading.Thread(target=self._send_all, name="channel-out", daemon=True)
        self._sender.start()
        threading.Thread(target=self._receive_all, name="channel-in", daemon=True).start()

    def post(self, message: Any) -> None:
        """Send a message soon; it must not change any more."""
        self._outbox.put(message)

    def flush(self) -> None:
        """Wait until everything posted is sent; nothing may be posted afterwards."""
        self._outbox.put(None)
        self._sender.join()

    def _send_all(self) -> None:
        ended = False
        while not ended:
            messages = [self._outbox.get()]
            while not self._outbox.empty():
                messages.append(self._outbox.get())
            ended = messages[-1] is None
            try:
                self._connection.send([message for message in messages if message is not None])
            except OSError:  # the other end is gone, which the receiving thread tells
                return

    def _receive_all(self) -> None:
        try:
            while True:
                for message in self._connection.recv():
                    self._receive(message)
        except (EOFError, OSError):
            pass
        finally:
            self._lost()


class SharedArrays:
    """Memory of two processes: one writes a list of arrays into it, the other reads them where they are.

    Args:
        descriptor: of the other process's memory, as inherited; absent: new memory.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = os.memfd_create("rlpost-arrays") if descriptor is None else descriptor

    def write(self, payload: Sequence[Any]) -> list[Any]:
        """``payload`` with a ``Place`` for every array in it, copied in over what was there."""
        found: list[Any] = []
        end = 0
        for one in payload:
            if isinstance(one, np.ndarray):
                found.append(Place(one.dtype.str, one.shape, end))
                end += -(-one.nbytes // ALIGNMENT) * ALIGNMENT
            else:
                found.append(one)
        os.truncate(self.descriptor, end)
        memory = mmap.mmap(self.descriptor, end) if end else b""
        for one, place in zip(payload, found, strict=True):
            if isinstance(place, Place):
                np.ndarray(place.shape, place.dtype, memory, place.offset)[...] = one
        return found

    def read(self, payload: Sequence[Any]) -> list[Any]:
        """What the other process has written: arrays read-only, and gone when it clears the memory."""
        size = os.fstat(self.descriptor).st_size
        memory = mmap.mmap(self.descriptor, 0, prot=mmap.PROT_READ) if size else b""
        return [
            np.ndarray(one.shape, one.dtype, memory, one.offset) if isinstance(one, Place) else one for one in payload
        ]

    def clear(self) -> None:
        """Give the memory back; nobody may read the arrays any more."""
        os.truncate(self.descriptor, 0)
