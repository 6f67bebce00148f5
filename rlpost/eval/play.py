"""Playing the episodes of an evaluation: engines always full, every answer written down as soon as it is judged.

Each worker has several times as many episodes as its engine has slots, so that neither judging nor the way through Ray
ever lets a slot run empty. Left out: starting the workers (run.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import ray

from rlpost.eval.samples import Sample
from rlpost.faults import RunError
from rlpost.rollout.chat import ChatFormat, cut
from rlpost.rollout.specs import REWARD_ERROR, EpisodeSpec, Setting
from rlpost.rollout.trajectory import StopReason, Trajectory
from rlpost.workers import Flight, WorkerPool

POLL_S = 0.1
MAX_FAILED_SHARE = 0.05
"""Of all episodes so far, at most this share (and three more) may fail twice; with more the numbers mean nothing."""


def play(
    pool: WorkerPool,
    specs: Iterable[EpisodeSpec],
    each: int,
    deadline_s: float,
    done: Callable[[EpisodeSpec, Trajectory], None],
) -> None:
    """Play all ``specs``, at most ``each`` at once a worker; ``done`` is told of every one that has ended.

    An episode that fails is played once more.

    Raises:
        RunError: a broken reward function, too many failures, or no episode ending for ``deadline_s``.
    """
    waiting = iter(specs)
    flights: set[Flight] = set()
    again: list[EpisodeSpec] = []
    retried: set[tuple[str, str, int]] = set()
    ended = failed = 0
    last_end = time.monotonic()
    while True:
        flights.update(pool.keep_busy(iter(again), each), pool.keep_busy(waiting, each))
        again = []
        if not flights:
            return
        pool.poll(flights, POLL_S)
        landed = [flight for flight in flights if flight.summary is not None]
        flights.difference_update(landed)
        for flight in landed:
            trajectory: Trajectory = ray.get(flight.trajectory_ref)
            key = (flight.spec.setting, flight.spec.task.id, flight.spec.index)
            if trajectory.failed and key not in retried and not trajectory.error.startswith(REWARD_ERROR):
                retried.add(key)
                again.append(flight.spec)
                continue
            ended, failed = ended + 1, failed + trajectory.failed
            _refuse(trajectory, failed, ended)
            done(flight.spec, trajectory)
        for worker in {flight.summary.worker for flight in landed if flight.summary and flight.summary.worn_out}:
            pool.replace_worn_out(worker)
        last_end = time.monotonic() if landed else last_end
        if time.monotonic() - last_end > deadline_s:
            raise RunError(
                f"no episode ended within cluster.deadline_s = {deadline_s:g} s ({ended} are done)\n{pool.status()}"
            )


def _refuse(trajectory: Trajectory, failed: int, ended: int) -> None:
    if trajectory.error.startswith(REWARD_ERROR):
        raise RunError(f"task {trajectory.task_id}: {trajectory.error.removeprefix(REWARD_ERROR)}")
    if failed > 3 + MAX_FAILED_SHARE * ended:
        raise RunError(
            f"{failed} of {ended} episodes failed twice each, too many for the numbers to mean anything. The last one, "
            f"task {trajectory.task_id}: {trajectory.error}"
        )


def sample_of(spec: EpisodeSpec, trajectory: Trajectory, setting: Setting, chat: ChatFormat) -> Sample:
    """What is kept of an episode."""
    start = trajectory.turns[0].start if trajectory.turns else len(trajectory)
    text = chat.decode(trajectory.token_ids[start:].tolist())
    return Sample(
        bench=spec.setting,
        task=spec.task.id,
        index=spec.index,
        seed=spec.seed,
        right=trajectory.success,
        reward=0.0 if trajectory.failed else trajectory.reward,
        answer=trajectory.answer,
        stop=str(trajectory.stop),
        truncated=trajectory.stop is StopReason.TOKEN_LIMIT,
        tokens=trajectory.policy_tokens,
        text=cut(text, setting.stop).encode(errors="replace").decode(),
        error=trajectory.error,
        scenario=trajectory.scenario,
        parts=trajectory.reward_parts,
        difficulty=trajectory.difficulty,
        metrics=trajectory.metrics,
    )
