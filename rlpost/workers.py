"""The pool of rollout workers: starts them, spreads episodes over them, restarts the dead.

Each episode is one actor call with two returns: a small summary for the controller and the trajectory, which stays in
Ray's object store and is owned by the controller, so that a worker's death never takes finished episodes along.
Left out: which episodes make a step (store.py) and what the weights are (weights.py).
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

import ray

from rlpost.faults import CallFailed, RunError, gather, last_log_lines
from rlpost.remote import Calls, remote, remote_pair, start
from rlpost.rollout.specs import EpisodeSpec, Summary, WorkerSetup
from rlpost.rollout.trajectory import Trajectory
from rlpost.rollout.worker import RolloutWorker

MAX_RESTARTS = 3
P = ParamSpec("P")
R = TypeVar("R")


class RolloutActor(RolloutWorker):
    """A rollout worker as a Ray actor."""

    async def ready(self) -> int:
        """Answers, with the process id, once the engine is up."""
        return os.getpid()

    async def run(self, spec: EpisodeSpec) -> tuple[Summary, Trajectory]:
        """As of a rollout worker. An engine that lived in a process of its own and lost it takes the actor along: the
        pool starts both anew, and the episode is played again."""
        answer = await super().run(spec)
        if self.engine_lost:
            print(answer[0].error, file=sys.stderr, flush=True)
            os._exit(1)
        return answer


Method = Callable[Concatenate[RolloutActor, P], Coroutine[Any, Any, R]]
"""A method of the actor, by itself: ``RolloutActor.ready``."""


@dataclass(slots=True, eq=False)
class Flight:
    """One episode under way, or done when ``summary`` is there."""

    spec: EpisodeSpec
    worker: int
    summary_ref: ray.ObjectRef[Summary]
    trajectory_ref: ray.ObjectRef[Trajectory]
    summary: Summary | None = None


@dataclass(slots=True)
class _Worker:
    actor: Any
    pid: int | None = None
    restarts: int = 0
    flights: set[Flight] = field(default_factory=set)


class WorkerPool:
    """N rollout workers.

    Args:
        setup: what every worker is built from.
        options: Ray options of each worker's actor, e.g. ``{"num_gpus": 0.5}``; ``runtime_env`` carries the engine's
            environment variables.
        deadline_s: longest wait for any one call.
        on_note: told about every restart.
    """

    def __init__(
        self,
        setup: WorkerSetup,
        options: Sequence[dict[str, Any]],
        deadline_s: float,
        on_note: Callable[[str], None],
    ) -> None:
        self._setup = setup
        self._options = options
        self._deadline_s = deadline_s
        self._note = on_note
        self._workers = [_Worker(self._start(index)) for index in range(len(options))]
        self._turn = 0
        self._bring_up_to_date: Callable[[int], None] | None = None

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def pids(self) -> list[int | None]:
        """Process ids, in worker order."""
        return [worker.pid for worker in self._workers]

    def _start(self, index: int) -> Any:
        options = {"max_concurrency": 10_000, **self._options[index]}
        return start(RolloutActor, options, dataclasses.replace(self._setup, worker=index))

    def wait_ready(self) -> None:
        """Block until every worker's engine is up.

        Raises:
            RunError: an engine failed to start; the message has its last log lines.
        """
        for index in range(len(self._workers)):
            self._workers[index].pid = self.call(index, RolloutActor.ready)

    def on_restart(self, bring_up_to_date: Callable[[int], None]) -> None:
        """Register what a fresh worker needs before it may play: the current weights."""
        self._bring_up_to_date = bring_up_to_date

    def call(self, index: int, method: Method[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """One call to one worker under the deadline."""
        ref = remote(self._workers[index].actor, method, *args, **kwargs)
        try:
            return gather([ref], self._deadline_s)[0]
        except CallFailed as failed:
            self.fail(index, failed.error, method.__name__)

    def call_all(self, method: Method[P, R], *args: P.args, **kwargs: P.kwargs) -> list[R]:
        """The same call to all workers at once; results in worker order."""
        return self.answers(self.ask(method, *args, **kwargs))

    def ask(self, method: Method[P, R], *args: P.args, **kwargs: P.kwargs) -> Calls[R]:
        """The same call to all workers at once, not waited for."""
        return Calls(method.__name__, [remote(worker.actor, method, *args, **kwargs) for worker in self._workers])

    def answers(self, asked: Calls[R]) -> list[R]:
        """What the workers answered to ``ask``, in worker order."""
        try:
            return gather(asked.refs, self._deadline_s)
        except CallFailed as failed:
            self.fail(failed.place, failed.error, asked.method)

    def fail(self, index: int, error: Exception | None, doing: str) -> NoReturn:
        """Say which worker failed, doing what; without an error the time was over.

        Raises:
            RunError: always.
        """
        log = last_log_lines(self._workers[index].pid)
        if error is None:
            raise RunError(
                f"rollout worker {index} did not finish '{doing}' within cluster.deadline_s = {self._deadline_s:g} s. "
                f"Its last log lines:\n{log}"
            )
        if isinstance(error, ray.exceptions.RayTaskError):
            raise RunError(f"rollout worker {index} failed in '{doing}': {error.cause}") from error
        raise RunError(
            f"rollout worker {index} died in '{doing}': {_first_line(error)}. Its last log lines:\n{log}"
        ) from error

    def submit(self, specs: Sequence[EpisodeSpec]) -> list[Flight]:
        """Start episodes, spread evenly over the workers in a fixed order."""
        flights = []
        for spec in specs:
            flights.append(self._launch(spec, self._turn % len(self._workers)))
            self._turn += 1
        return flights

    def keep_busy(self, specs: Iterator[EpisodeSpec], each: int) -> list[Flight]:
        """Start episodes until every worker has ``each`` of them unfinished, or there are none left; those started."""
        flights = []
        for index, worker in enumerate(self._workers):
            missing = each - len(worker.flights)
            flights += [self._launch(spec, index) for spec in itertools.islice(specs, max(0, missing))]
        return flights

    def begin(self, count: int) -> None:
        """Deterministic mode: tell each worker how many of the next ``count`` episodes are its own."""
        self._turn = 0
        for index in range(len(self._workers)):
            share = count // len(self._workers) + (index < count % len(self._workers))
            self.call(index, RolloutActor.begin, share)

    def _launch(self, spec: EpisodeSpec, index: int) -> Flight:
        worker = self._workers[index]
        flight = Flight(spec, index, *remote_pair(worker.actor, RolloutActor.run, spec))
        worker.flights.add(flight)
        return flight

    def poll(self, flights: Iterable[Flight], timeout_s: float) -> None:
        """Wait until all of ``flights`` are done or ``timeout_s`` passed; fill in the summaries that are there.

        A dead worker is restarted, given the current weights, and plays its unfinished episodes again.

        Raises:
            RunError: a worker died more than a few times.
        """
        waiting = {flight.summary_ref: flight for flight in flights if flight.summary is None}
        if not waiting:
            return
        ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=timeout_s)
        for ref in ready:
            self._land(waiting[ref])

    def _land(self, flight: Flight) -> None:
        if flight.summary is not None:
            return
        try:
            flight.summary = ray.get(flight.summary_ref, timeout=self._deadline_s)
            self._workers[flight.worker].flights.discard(flight)
        except ray.exceptions.RayTaskError as error:
            raise RunError(
                f"rollout worker {flight.worker} failed on task {flight.spec.task.id}: {error.cause}"
            ) from error
        except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
            self._restart(flight, error)

    def _restart(self, lost: Flight, error: Exception) -> None:
        index = lost.worker
        worker = self._workers[index]
        tasks = sorted({flight.spec.task.id for flight in worker.flights})
        what = (
            f"rollout worker {index} (process {worker.pid}) died: {_first_line(error)}; it was playing "
            f"{len(worker.flights)} episodes (tasks {', '.join(tasks[:5])}{', ...' if len(tasks) > 5 else ''})"
        )
        if worker.restarts >= MAX_RESTARTS:
            log = last_log_lines(worker.pid)
            raise RunError(f"{what}. It was restarted {MAX_RESTARTS} times already. Its last log lines:\n{log}")
        self._note(f"{what}; restarting it")
        self._replace(index, worker.restarts + 1)

    def replace_worn_out(self, index: int) -> None:
        """Start a worker anew that holds too many hung environment threads."""
        self._note(f"rollout worker {index} holds too many hung environment threads; restarting it")
        ray.kill(self._workers[index].actor)
        self._replace(index, self._workers[index].restarts)

    def _replace(self, index: int, restarts: int) -> None:
        """A fresh worker with the current weights plays the unfinished episodes of the old one."""
        unfinished = sorted(self._workers[index].flights, key=lambda flight: (flight.spec.group_id, flight.spec.index))
        fresh = _Worker(self._start(index), restarts=restarts)
        self._workers[index] = fresh
        fresh.pid = self.call(index, RolloutActor.ready)
        if self._bring_up_to_date is not None:
            self._bring_up_to_date(index)
        if self._setup.deterministic and unfinished:
            self.call(index, RolloutActor.begin, len(unfinished))
        for flight in unfinished:
            flight.summary_ref, flight.trajectory_ref = remote_pair(fresh.actor, RolloutActor.run, flight.spec)
            fresh.flights.add(flight)

    def cancel(self, flights: Sequence[Flight]) -> None:
        """Abort episodes; their summaries come back as cancelled."""
        for index, worker in enumerate(self._workers):
            keys = [(f.spec.group_id, f.spec.index) for f in flights if f.worker == index and f.summary is None]
            if keys:
                remote(worker.actor, RolloutActor.cancel, keys)

    def status(self) -> str:
        """What each worker is doing, for messages about a stall."""
        return "\n".join(
            f"  worker {index}: {self.call(index, RolloutActor.status)}" for index in range(len(self._workers))
        )

    def close(self, grace_s: float = 3.0) -> None:
        """End all workers: asked first, killed after ``grace_s``."""
        refs = [remote(worker.actor, RolloutActor.close) for worker in self._workers]
        end = time.monotonic() + grace_s
        ray.wait(refs, num_returns=len(refs), timeout=max(0.0, end - time.monotonic()))
        for worker in self._workers:
            ray.kill(worker.actor)


def _first_line(error: Exception) -> str:
    """What happened; of an actor that could not be built its own error, which Ray puts last."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip() if "creation task" in lines[0] else lines[0]
