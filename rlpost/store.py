"""The trajectory store: which episodes belong to which step, when a step's groups are complete, how old they are.

Trajectories themselves lie in Ray's object store; here are their references. Left out: playing episodes (workers.py),
learning from them (the learner), and which groups are worth replacing (the algorithm says).
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import ray
from numpy.typing import NDArray

from rlpost.faults import RunError
from rlpost.recipe_sections import BatchSection, StragglerSection
from rlpost.rollout.specs import REWARD_ERROR, EpisodeSpec, Summary
from rlpost.rollout.trajectory import Group, StopReason, Trajectory
from rlpost.workers import Flight, WorkerPool


@dataclass(slots=True)
class StepRollouts:
    """What one step's episodes came to.

    Attributes:
        groups: usable trajectories by task, ordered by group; a group may be smaller than asked for, never empty.
        refs: object-store references of the same trajectories, flattened in the same order.
        summaries: of every episode that ended, the failed included.
        oldest_version: the oldest weights that sampled any token here.
        stops: how many episodes ended for which reason.
        redrawn: groups that were replaced by another task's; their episodes are among ``summaries`` all the same.
    """

    groups: list[Group]
    refs: list[ray.ObjectRef]
    summaries: list[Summary]
    oldest_version: int
    stops: Counter[str]
    redrawn: int = 0
    wall_s: float = 0.0

    @property
    def failed(self) -> int:
        """Episodes lost to a fault of environment or engine."""
        return sum(summary.failed for summary in self.summaries)


@dataclass(frozen=True, slots=True)
class Refill:
    """How a step's groups that teach nothing are replaced (dynamic sampling).

    Attributes:
        wanted: whether a group with these (K,) rewards is to be replaced.
        draw: all episodes of up to so many further groups, of tasks the step has not had; fewer or none where the
            budget is spent.
    """

    wanted: Callable[[NDArray[np.float64]], bool]
    draw: Callable[[int], list[EpisodeSpec]]


@dataclass(slots=True)
class _Batch:
    flights: list[Flight]
    started: float = field(default_factory=time.monotonic)


class TrajectoryStore:
    """Batches of episodes in flight, keyed by step.

    Args:
        pool: the rollout workers.
        batch: the recipe's batch section: straggler rule and tolerated failures.
        deadline_s: a step with no episode ending for this long is a stall, and an error.
        deterministic: announce each batch to the workers' lock-step engines.
    """

    def __init__(self, pool: WorkerPool, batch: BatchSection, deadline_s: float, deterministic: bool = False) -> None:
        self._pool = pool
        self._straggler = batch.straggler
        self._max_failed_fraction = batch.max_failed_fraction
        self._deadline_s = deadline_s
        self._deterministic = deterministic
        self._batches: dict[int, _Batch] = {}

    def submit(self, step: int, specs: Sequence[EpisodeSpec]) -> None:
        """Start all episodes of a step."""
        self._batches[step] = self._start(specs)

    def _start(self, specs: Sequence[EpisodeSpec]) -> _Batch:
        if self._deterministic:
            self._pool.begin(len(specs))
        return _Batch(self._pool.submit(specs))

    def pending(self, step: int) -> bool:
        """Whether the step's episodes were started and not yet collected."""
        return step in self._batches

    def collect(self, step: int, refill: Refill | None = None) -> StepRollouts:
        """Wait until the step is complete and hand over its groups; with ``refill``, those it replaces are left out.

        Raises:
            RunError: too many episodes failed, nothing usable came back, or nothing ended within the deadline.
        """
        batch = self._batches[step]
        self._wait(batch, step)
        del self._batches[step]
        asked, ended = len(batch.flights), _ended(batch)
        replaced: set[int] = set()
        while refill is not None:
            dull = [group for group, rewards in _rewards(ended, replaced).items() if refill.wanted(rewards)]
            specs = refill.draw(len(dull)) if dull else []
            if not specs:
                break
            replaced.update(dull[: len({spec.group_id for spec in specs})])
            more = self._start(specs)
            self._wait(more, step)
            asked, ended = asked + len(more.flights), ended + _ended(more)
        rollouts = _assemble(ended, replaced)
        rollouts.wall_s = time.monotonic() - batch.started
        for worker in {summary.worker for summary in rollouts.summaries if summary.worn_out}:
            self._pool.replace_worn_out(worker)
        self._check(rollouts, asked, step)
        return rollouts

    def _wait(self, batch: _Batch, step: int) -> None:
        """Until the batch is complete; what is still under way is called off."""
        last_end, ended = time.monotonic(), -1
        while not _complete(batch.flights, self._straggler):
            self._pool.poll(batch.flights, 0.1 if self._straggler else 1.0)
            now_ended = sum(flight.summary is not None for flight in batch.flights)
            if now_ended != ended:
                last_end, ended = time.monotonic(), now_ended
            elif time.monotonic() - last_end > self._deadline_s:
                raise RunError(
                    f"step {step}: no episode ended within cluster.deadline_s = {self._deadline_s:g} s "
                    f"({ended} of {len(batch.flights)} are done)\n{self._pool.status()}"
                )
        self._pool.cancel([flight for flight in batch.flights if flight.summary is None])

    def _check(self, rollouts: StepRollouts, asked: int, step: int) -> None:
        refuse_failures(rollouts.summaries, asked, self._max_failed_fraction, f"step {step}")
        if not rollouts.groups:
            raise RunError(f"step {step}: not one usable episode came back (stop reasons: {dict(rollouts.stops)})")


def refuse_failures(summaries: Sequence[Summary], asked: int, tolerated: float, doing: str) -> None:
    """Stop where a reward function is broken (it is so for every episode), or where too many episodes failed.

    Raises:
        RunError: either of the two; the message has the task, or the most frequent reason.
    """
    for summary in summaries:
        if summary.reward_bug:
            raise RunError(f"{doing}, task {summary.task_id} (env.options): {summary.error.removeprefix(REWARD_ERROR)}")
    errors = Counter(summary.error for summary in summaries if summary.failed)
    if errors.total() > tolerated * asked:
        ((reason, times),) = errors.most_common(1)
        raise RunError(
            f"{doing}: {errors.total()} of {asked} episodes failed, more than batch.max_failed_fraction = "
            f"{tolerated:g} allows. The most frequent reason ({times} times): {reason}"
        )


def _complete(flights: Sequence[Flight], straggler: StragglerSection | None) -> bool:
    """Whether enough has ended: everything, or what the straggler rule asks of all and of each group."""
    done = [flight for flight in flights if flight.summary is not None]
    if len(done) == len(flights):
        return True
    if straggler is None or len(done) < math.ceil(straggler.fraction * len(flights)):
        return False
    sizes = Counter(flight.spec.group_id for flight in flights)
    ended = Counter(flight.spec.group_id for flight in done)
    return all(ended[group] >= round(straggler.min_group * size) for group, size in sizes.items())


def _ended(batch: _Batch) -> list[Flight]:
    return [flight for flight in batch.flights if flight.summary is not None]


def _by_group(flights: Sequence[Flight], replaced: Set[int]) -> dict[int, list[Flight]]:
    """The usable episodes of each group but the replaced ones, in order."""
    by_group: dict[int, list[Flight]] = defaultdict(list)
    for flight in sorted(flights, key=lambda flight: (flight.spec.group_id, flight.spec.index)):
        if flight.summary is not None and flight.summary.usable and flight.spec.group_id not in replaced:
            by_group[flight.spec.group_id].append(flight)
    return by_group


def _rewards(flights: Sequence[Flight], replaced: Set[int]) -> dict[int, NDArray[np.float64]]:
    """(K,) rewards of each group."""
    groups = _by_group(flights, replaced)
    return {
        group: np.array([flight.summary.reward for flight in members if flight.summary is not None])
        for group, members in groups.items()
    }


def _assemble(flights: Sequence[Flight], replaced: Set[int]) -> StepRollouts:
    """Fetch the usable trajectories (zero-copy from shared memory) and put them into groups."""
    by_group = _by_group(flights, replaced)
    ordered = [flight for group in by_group.values() for flight in group]
    trajectories: list[Trajectory] = ray.get([flight.trajectory_ref for flight in ordered])
    found = iter(trajectories)
    groups = [Group(gid, members[0].spec.task.id, [next(found) for _ in members]) for gid, members in by_group.items()]
    summaries = [flight.summary for flight in flights if flight.summary is not None]
    return StepRollouts(
        groups=groups,
        refs=[flight.trajectory_ref for flight in ordered],
        summaries=summaries,
        oldest_version=min((s.version_min for s in summaries if s.usable), default=-1),
        stops=Counter(str(StopReason(summary.stop)) for summary in summaries),
        redrawn=len(replaced),
    )
