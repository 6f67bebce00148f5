"""The engine's own process: a ``StepLoop`` that is asked by messages. ``process.py`` starts it.

    python -m rlpost.rollout.vllm.served SOCKET MEMORY         # two inherited file descriptors

Every answer carries the version of the weights and the loop's numbers, so that whoever asked knows them as of then.
Left out: what the calls mean (loop.py).
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from rlpost.rollout.engine import EngineError, SampleRequest
from rlpost.rollout.vllm.channel import Channel, SharedArrays
from rlpost.rollout.weight_update import WeightUpdate

if TYPE_CHECKING:
    from rlpost.rollout.vllm.loop import StepLoop
    from rlpost.rollout.vllm.process import LoopSetup

NEWS_S = 0.1
"""Seconds between two reports of the loop's numbers while nothing is answered."""


class Server:
    """Takes messages (number, name, arguments) and answers those that have a number.

    Args:
        descriptor: of the socket to the worker; where its other end closes, this process ends at once.
        memory: of the memory that weights come through.
    """

    def __init__(self, descriptor: int, memory: int) -> None:
        self._arrays = SharedArrays(memory)
        self._checks: dict[int, Callable[[Sequence[int]], bool]] = {}
        self._start: queue.SimpleQueue[tuple[int, LoopSetup]] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._loop: StepLoop
        self._channel = Channel(descriptor, self._receive, lost=lambda: os._exit(1))

    def run(self) -> None:
        """Build the loop and serve it until it is closed."""
        number, setup = self._start.get()
        try:
            self._loop = setup.build()
        except EngineError as error:
            self._channel.post((number, error, setup.version, {}))
        else:
            self._answer(number, self._loop.vocabulary)
            while not self._closing.wait(NEWS_S):
                self._answer(None, None)
            self._loop.close()
        self._channel.flush()

    def _receive(self, message: tuple[int | None, str, tuple[Any, ...]]) -> None:
        number, name, arguments = message
        if number is None:
            getattr(self, f"_{name}")(*arguments)
        elif name == "start":
            self._start.put((number, *arguments))
        else:
            self._ask(number, name, arguments)

    def _ask(self, number: int, name: str, arguments: tuple[Any, ...]) -> None:
        try:
            own: Callable[..., Future[Any]] = getattr(self, f"_{name}", None) or getattr(self._loop, name)
            future = own(*arguments)
        except Exception as error:
            self._answer(number, error if isinstance(error, EngineError) else EngineError(repr(error)))
        else:
            future.add_done_callback(lambda done: self._answer(number, done.exception() or done.result()))

    def _answer(self, number: int | None, outcome: Any) -> None:
        self._channel.post((number, outcome, self._loop.version, self._loop.stats()))

    def _generate(self, request: SampleRequest, check: int = 0, pickled: bytes | None = None) -> Future[Any]:
        if pickled is not None:
            self._checks[check] = pickle.loads(pickled)
        return self._loop.generate(dataclasses.replace(request, ends=self._checks[check]) if check else request)

    def _update(self, update: WeightUpdate) -> Future[Any]:
        return self._loop.update(dataclasses.replace(update, payload=self._arrays.read(update.payload)))

    def _abort(self, request_id: str) -> None:
        self._loop.abort(request_id)

    def _announce(self, episodes: int) -> None:
        self._loop.announce(episodes)

    def _close(self) -> None:
        self._closing.set()


if __name__ == "__main__":
    Server(int(sys.argv[1]), int(sys.argv[2])).run()
