"""The thread that steps vLLM: it takes commands between steps, admits requests, and sleeps when there is nothing.

All vLLM objects are made and used on this thread alone; other threads post commands and get futures. Lock-step: while
episodes are announced, the engine steps only when each of them has a request in it, so the batch of every step is a
function of the episodes and not of how fast their environments answer. Left out: asyncio (engine.py), who of those that
wait is let in when (waiting.py).
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from vllm.v1.engine import EngineCoreOutput, FinishReason

from rlpost.rollout.engine import EngineError, ProbeResult, Sample, SampleRequest
from rlpost.rollout.transport.ends import Rendezvous
from rlpost.rollout.vllm.core import VllmCore
from rlpost.rollout.vllm.requests import Probe, Sampling
from rlpost.rollout.vllm.waiting import Waiting
from rlpost.rollout.weight_update import WeightUpdate

T = TypeVar("T")
BURST_S, LONGEST_BURST_S = 0.01, 0.15
"""An idle engine on a GPU begins when no request has come for the former, every slot has one, or the latter has passed:
the requests of one burst then have their prompts computed in few steps, and if they are about as long, so have those
that follow them."""


class StepLoop:
    """Steps one engine core on a thread of its own.

    Args:
        build: makes the core; called on the thread.
        slots: requests in the core at once.
        stop_token_ids: tokens that end a request.
        version: of the weights the core starts with.
        lock_step: admit requests in their ``order`` and honour ``expect``.

    Raises:
        EngineError: the core cannot be built.
    """

    lost = False
    """A loop in this process is not lost without it; see LoopProcess."""

    def __init__(
        self, build: Callable[[], VllmCore], slots: int, stop_token_ids: Sequence[int], version: int, lock_step: bool
    ) -> None:
        self.version = version
        self.tokens = self.steps = self.prompt_tokens = self.cached_tokens = 0
        self.step_seconds = self.update_seconds = self.pause_seconds = 0.0
        self._updated_at: float | None = None
        self._slots = slots
        self._stop_token_ids = tuple(stop_token_ids)
        self._lock_step = lock_step
        self._live = 0
        self._admissions = itertools.count()
        self._waiting = Waiting(ordered=lock_step)
        self._running: dict[str, Sampling] = {}
        self._probes: dict[str, tuple[Probe, int]] = {}
        self._core_ids: dict[str, str | None] = {}  # by the request's own id; None while it waits
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._open: set[Future[Any]] = set()
        self._lock = threading.Lock()
        self._over: EngineError | None = None
        self._closing = False
        built: Future[VllmCore] = Future()
        self._thread = threading.Thread(target=self._main, args=(build, built), name="vllm-steps", daemon=True)
        self._thread.start()
        self.core = built.result()

    # Called from any thread.

    def generate(self, request: SampleRequest) -> Future[Sample]:
        """Sample one request; raises EngineError at once where the engine is over."""
        future: Future[Sample] = Future()
        self._post(lambda: self._receive(Sampling(request, future)), future)
        return future

    def probe(self, token_ids: list[list[int]], temperature: float, seed: int) -> Future[ProbeResult]:
        """Score sequences; the requests of a probe join the next step, ahead of all that wait."""
        future: Future[ProbeResult] = Future()
        self._post(lambda: self._add_probe(token_ids, temperature, seed, future), future)
        return future

    def update(self, update: WeightUpdate) -> Future[None]:
        """Switch weights between two steps."""
        future: Future[None] = Future()
        self._post(lambda: self._load(update, future), future)
        return future

    def connect(self, where: Rendezvous) -> Future[None]:
        """Join the broadcast of weights between two steps."""
        future: Future[None] = Future()

        def join() -> None:
            self._core.connect(where)
            future.set_result(None)

        self._post(join, future)
        return future

    def sleep(self) -> Future[None]:
        """Abort what runs and give the GPU's memory back until the next update."""
        future: Future[None] = Future()
        self._post(lambda: self._sleep(future), future)
        return future

    def abort(self, request_id: str) -> None:
        """End a request early; one that is not here is ignored."""
        self._post(lambda: self._abort(request_id))

    def announce(self, episodes: int) -> None:
        """Change the number of episodes that lock-step waits for."""
        self._post(lambda: self._announce(episodes))

    def close(self) -> None:
        """End the thread; what is still in flight fails with EngineError."""
        self._post(self._close)
        self._thread.join()

    @property
    def vocabulary(self) -> int:
        """Number of token ids the model knows."""
        return self.core.vocabulary

    def stats(self) -> dict[str, float]:
        """See VllmEngine.stats."""
        return {
            "tokens": float(self.tokens),
            "steps": float(self.steps),
            "step_s": self.step_seconds,
            "prompt_tokens": float(self.prompt_tokens),
            "cached_tokens": float(self.cached_tokens),
            "update_s": self.update_seconds,
            "pause_s": self.pause_seconds,
            "running": float(len(self._running)),
            "waiting": float(len(self._waiting)),
        }

    def _post(self, command: Callable[[], None], future: Future[Any] | None = None) -> None:
        """Hand over a command. One that somebody waits for (``future``) raises where the engine is over."""
        with self._lock:
            if self._over is None:
                if future is not None:
                    future.set_running_or_notify_cancel()  # from here on only this thread's result ends it
                    self._open.add(future)
                    future.add_done_callback(self._open.discard)
                self._commands.put(command)
            elif future is not None:
                raise EngineError(str(self._over)) from self._over.__cause__

    # Called on the thread.

    def _main(self, build: Callable[[], VllmCore], built: Future[VllmCore]) -> None:
        try:
            self._core = build()
        except BaseException as error:
            built.set_exception(error)
            return
        built.set_result(self._core)
        over = EngineError("the engine was closed")
        try:
            while not self._closing:
                self._take_commands()
                self._take_burst()
                if self._ready():
                    if self._waiting.gathered(len(self._running), self._slots):
                        self._admit()
                    self._step()
            self._core.close()
        except BaseException as error:
            over = EngineError(f"the engine died at weights version {self.version}: {type(error).__name__}: {error}")
            over.__cause__ = error
        self._end(over)

    def _end(self, over: EngineError) -> None:
        with self._lock:
            self._over = over
            unfinished = list(self._open)
        for future in unfinished:
            error = EngineError(str(over))
            error.__cause__ = over.__cause__
            future.set_exception(error)

    def _take_commands(self) -> None:
        if not self._ready():
            self._commands.get()()  # sleeps until something is asked for
        while not self._commands.empty():
            self._commands.get()()

    def _take_burst(self) -> None:
        idle = self._waiting and not (self._running or self._probes)
        if not idle or self._lock_step or not self._core.waits_for_bursts:
            return
        ends = time.monotonic() + LONGEST_BURST_S
        while len(self._waiting) < self._slots and not self._closing:
            try:
                self._commands.get(timeout=min(BURST_S, max(0.0, ends - time.monotonic())))()
            except queue.Empty:
                return

    def _ready(self) -> bool:
        """Whether there is something to step, and in lock-step no live episode is still away."""
        requests = len(self._running) + len(self._waiting)
        return (requests > 0 or bool(self._probes)) and requests >= self._live

    def _receive(self, sampling: Sampling) -> None:
        if sampling.request.id in self._core_ids:
            sampling.fail("another request of the same id is in flight")
            return
        self._core_ids[sampling.request.id] = None
        self._waiting.add(sampling)

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._slots:
            sampling = self._waiting.next()
            # Numbered as admitted, not as received: in lock-step the ids themselves repeat from run to run.
            core_id = str(next(self._admissions))
            request = sampling.request
            self._core_ids[request.id] = core_id
            self._core.add(
                core_id,
                request.token_ids,
                request.max_tokens,
                request.temperature,
                request.seed,
                self._stop_token_ids,
                logprobs=request.logprobs,
            )
            sampling.sampled_by(self.version)
            self._running[core_id] = sampling

    def _step(self) -> None:
        began = time.perf_counter()
        outputs = self._core.step()
        self.steps += 1
        self.step_seconds += time.perf_counter() - began
        if self._updated_at is not None and any(output.new_token_ids for output in outputs):
            self.pause_seconds = time.perf_counter() - self._updated_at
            self._updated_at = None
        running = self._running
        for output in outputs:
            sampling = running.get(output.request_id)
            if sampling is not None:
                self._deliver(sampling, output)
            elif output.request_id in self._probes:
                probe, index = self._probes.pop(output.request_id)
                probe.absorb(index, output)

    def _deliver(self, sampling: Sampling, output: EngineCoreOutput) -> None:
        if output.prefill_stats is not None:
            self.prompt_tokens += output.prefill_stats.num_prompt_tokens
            self.cached_tokens += output.prefill_stats.num_cached_tokens
        self.tokens += sampling.absorb(output)
        if output.finish_reason is None:
            if sampling.request.ends is not None and sampling.ended():
                self._drop(sampling.request.id).finish(stopped=True)
            return
        del self._running[output.request_id]
        del self._core_ids[sampling.request.id]
        if output.finish_reason in (FinishReason.STOP, FinishReason.LENGTH):
            sampling.finish(stopped=output.finish_reason is FinishReason.STOP)
        else:
            sampling.fail(f"vLLM ended it with '{output.finish_reason}'")

    def _abort(self, request_id: str) -> None:
        if request_id not in self._core_ids:
            return
        self._drop(request_id).finish(stopped=False, aborted=True)

    def _drop(self, request_id: str) -> Sampling:
        """Take a request out before its end."""
        core_id = self._core_ids.pop(request_id)
        if core_id is not None:
            self._core.abort([core_id])
            return self._running.pop(core_id)
        return self._waiting.remove(request_id)

    def _add_probe(
        self, token_ids: list[list[int]], temperature: float, seed: int, future: Future[ProbeResult]
    ) -> None:
        probe = Probe(token_ids, self.version, future)
        for index, tokens in enumerate(token_ids):
            core_id = f"probe-{next(self._admissions)}"
            self._core.add(core_id, tokens, 1, temperature, seed + index, score_prompt=True)
            self._probes[core_id] = (probe, index)

    def _load(self, update: WeightUpdate, future: Future[None]) -> None:
        self._updated_at = time.perf_counter()
        self._core.load(update)
        self.update_seconds = time.perf_counter() - self._updated_at
        self.version = update.version
        for sampling in self._running.values():
            sampling.sampled_by(self.version)
        future.set_result(None)

    def _sleep(self, future: Future[None]) -> None:
        for sampling in list(self._running.values()):
            self._abort(sampling.request.id)
        self._core.sleep()
        future.set_result(None)

    def _announce(self, episodes: int) -> None:
        self._live = max(0, self._live + episodes) if self._lock_step else 0

    def _close(self) -> None:
        self._closing = True
