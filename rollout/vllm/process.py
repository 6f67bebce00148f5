"""The engine's loop in a process of its own, as the worker sees it: the same calls as of ``StepLoop``, by messages.

On a GPU a step takes a few milliseconds of Python. In the worker's process they would wait for the one lock that
episodes hold: rendering, requests, results on their way to the judges. Here a request crosses once, and its sample
once, at its end. Nothing in this file imports vllm. Left out: the other side (served.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlpost.rollout.digest import Held
from rlpost.rollout.engine import EngineError, ProbeResult, Sample, SampleRequest
from rlpost.rollout.transport.ends import Rendezvous
from rlpost.rollout.vllm.channel import Channel, SharedArrays
from rlpost.rollout.vllm.config import VllmConfig
from rlpost.rollout.weight_update import Adapters, WeightUpdate

if TYPE_CHECKING:
    from rlpost.rollout.vllm.loop import StepLoop

END_S = 20.0
"""Seconds that the process has to end by itself."""


@dataclass(frozen=True, slots=True)
class LoopSetup:
    """What a ``StepLoop`` and its core are built from; names as in VllmEngine."""

    model: str
    config: VllmConfig
    max_context: int
    stop_token_ids: tuple[int, ...]
    seed: int
    deterministic: bool
    transport: str
    version: int
    seeded: bool
    scored: bool
    adapters: Adapters | None
    trust_remote_code: bool = False

    def build(self) -> StepLoop:
        """The loop, in this process, which imports vllm.

        Raises:
            EngineError: vLLM cannot start.
        """
        from rlpost.rollout.vllm.core import VllmCore
        from rlpost.rollout.vllm.loop import StepLoop

        return StepLoop(
            lambda: VllmCore(
                self.model,
                self.config,
                self.max_context,
                self.seed,
                self.transport,
                self.seeded,
                self.scored,
                self.adapters,
                self.trust_remote_code,
            ),
            slots=self.config.slots,
            stop_token_ids=self.stop_token_ids,
            version=self.version,
            lock_step=self.deterministic,
        )


class LoopProcess:
    """A ``StepLoop`` in a process of its own. It ends with this process, however that ends.

    Attributes:
        version: of the weights in use.
        vocabulary: number of token ids the model knows.
        lost: whether the process ended without being told to.

    Raises:
        EngineError: vLLM cannot start in it.
    """

    def __init__(self, setup: LoopSetup) -> None:
        self.version = setup.version
        self.lost = False
        self._stats: dict[str, float] = {}
        self._numbers = itertools.count()
        self._open: dict[int, Future[Any]] = {}
        self._checks: dict[int, Callable[[Sequence[int]], bool]] = {}
        self._lock = threading.Lock()
        self._over: EngineError | None = None
        self._closing = False
        self._arrays = SharedArrays()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = _start(theirs.fileno(), self._arrays.descriptor)
        self._channel = Channel(ours.detach(), self._receive, self._end)
        self.vocabulary: int = self._ask("start", setup).result()

    def generate(self, request: SampleRequest) -> Future[Sample]:
        """See StepLoop. ``request.ends`` is sent once, by pickle, and asked over there."""
        if request.ends is None:
            return self._ask("generate", request)
        check = id(request.ends)
        pickled = None if check in self._checks else pickle.dumps(request.ends)
        self._checks[check] = request.ends
        return self._ask("generate", dataclasses.replace(request, ends=None), check, pickled)

    def probe(self, token_ids: list[list[int]], temperature: float, seed: int) -> Future[ProbeResult]:
        """See StepLoop."""
        return self._ask("probe", token_ids, temperature, seed)

    def update(self, update: WeightUpdate) -> Future[list[Held]]:
        """See StepLoop. Arrays go through shared memory; what else a payload has is sent as it is."""
        places = self._arrays.write(update.payload)
        future = self._ask("update", dataclasses.replace(update, payload=places))
        future.add_done_callback(lambda _: self._arrays.clear())
        return future

    def connect(self, where: Rendezvous) -> Future[None]:
        """See StepLoop."""
        return self._ask("connect", where)

    def sleep(self) -> Future[None]:
        """See StepLoop."""
        return self._ask("sleep")

    def abort(self, request_id: str) -> None:
        """See StepLoop."""
        self._channel.post((None, "abort", (request_id,)))

    def announce(self, episodes: int) -> None:
        """See StepLoop."""
        self._channel.post((None, "announce", (episodes,)))

    def stats(self) -> dict[str, float]:
        """See VllmEngine.stats; exact whenever an answer has come, else up to a tenth of a second old."""
        return self._stats

    def close(self) -> None:
        """End the process; what is still in flight fails with EngineError."""
        self._closing = True
        self._channel.post((None, "close", ()))
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, name: str, *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # from here on only the answer ends it
        with self._lock:
            if self._over is not None:
                raise EngineError(str(self._over))
            number = next(self._numbers)
            self._open[number] = future
        self._channel.post((number, name, arguments))
        return future

    def _receive(self, message: tuple[int | None, Any, int, dict[str, float]]) -> None:
        number, outcome, self.version, self._stats = message
        future = None if number is None else self._open.pop(number, None)
        if future is None:
            return
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _end(self) -> None:
        """The process is gone."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        self.lost = not self._closing
        with self._lock:
            self._over = EngineError("the engine was closed" if self._closing else self._last_words())
            unfinished, self._open = list(self._open.values()), {}
        for future in unfinished:
            future.set_exception(EngineError(str(self._over)))

    def _last_words(self) -> str:
        code = self._process.returncode
        how = "hangs" if code is None else f"ended with code {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        return (
            f"the engine's process {how} at weights version {self.version}; the worker's log has what it said "
            "(SIGKILL without a word: most likely the machine ran out of memory)"
        )


def _start(descriptor: int, memory: int) -> subprocess.Popen[bytes]:
    # vLLM's own workers must not be forked from a process with threads.
    own = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "rlpost.rollout.vllm.served", str(descriptor), str(memory)],
        stdin=subprocess.DEVNULL,
        env={**os.environ, **own},
        pass_fds=[descriptor, memory],
        start_new_session=True,  # an interrupt at the terminal is the driver's to answer
    )
