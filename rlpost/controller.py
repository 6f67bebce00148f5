"""The loop. ``lag: 0`` is synchronous, ``lag: n`` keeps n further batches in flight: one loop, not two.

    play the batches of steps k .. k + lag  →  take step k's groups, those without signal replaced where the algorithm
    asks for it  →  advantages  →  learn  →  publish version k + 1

Left out: starting and ending actors (session.py), waiting for episodes (store.py), what a loss is (algorithms).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rlpost.envs.base import Task
from rlpost.evaluate import EvalResult, evaluate
from rlpost.learner.batch import LearnResult, StepBatch
from rlpost.report import MetricsWriter, RolloutWriter
from rlpost.rollout.specs import EpisodeSpec
from rlpost.sampling import derive_seed, spare_tasks, tasks_of_step
from rlpost.session import Session
from rlpost.step_metrics import EngineMetrics, step_row, unsolved_reward
from rlpost.store import Refill, StepRollouts, TrajectoryStore
from rlpost.weights import Gap
from rlpost.workers import RolloutActor


class Controller:
    """Trains one policy.

    Args:
        session: the running actors.
        metrics: where each step's row goes.
        rollouts: where a sample of each step's trajectories goes.
    """

    def __init__(self, session: Session, metrics: MetricsWriter, rollouts: RolloutWriter) -> None:
        self._session = session
        self._recipe = session.recipe
        self._metrics = metrics
        self._rollouts = rollouts
        self._engines = EngineMetrics()
        self._warned = False
        self._ended: float | None = None  # when the last step did, where the next one's episodes had begun
        self._store = TrajectoryStore(
            session.pool, self._recipe.batch, self._recipe.cluster.deadline_s, self._recipe.deterministic
        )

    def train(self, first_step: int = 0) -> None:
        """Run all steps from ``first_step`` on.

        Raises:
            RunError: a fault the run cannot go on with.
        """
        self._engine_metrics()  # what came before the first step is no step's
        for step in range(first_step, self._recipe.steps):
            self.step(step, ahead=True)
            done = step + 1
            if done == self._recipe.steps or (self._recipe.save.every and done % self._recipe.save.every == 0):
                self.save(done)
                self._ended = None

    def save(self, steps_done: int) -> None:
        """Write the checkpoint after ``steps_done`` steps and remove those too many."""
        folder = self._session.folder
        self._session.learner.save(folder.checkpoint(steps_done))
        folder.prune_checkpoints()

    def evaluate(self, greedy: bool = False) -> EvalResult:
        """Play the held-out tasks with the current weights."""
        session, recipe = self._session, self._recipe
        return evaluate(
            session.pool,
            session.held_out,
            recipe.eval.episodes,
            recipe.seed,
            recipe.deterministic,
            recipe.batch.max_failed_fraction,
            greedy=greedy,
        )

    def step(self, step: int, ahead: bool = False) -> None:
        """One step of the run; see ``train``. With ``ahead`` the next step's episodes begin before it ends."""
        began = self._ended if self._ended is not None else time.monotonic()
        self._keep_in_flight(step)
        rollouts = self._store.collect(step, self._refill(step))
        rollout_s = time.monotonic() - began
        if self._recipe.engine.sleep:
            self._session.pool.call_all(RolloutActor.sleep)  # the publication wakes the engines
        advantages = self._session.algorithm.advantages(rollouts.groups)
        result = self._learn(step, rollouts, advantages)
        learn_s = time.monotonic() - began - rollout_s
        gap, sync_s, engines = self._publish(step + 1, ahead and not self._evaluates_after(step + 1))
        times = {
            "time/rollout_s": rollout_s,
            "time/learn_s": learn_s,
            "time/sync_s": sync_s,
            "time/step_s": time.monotonic() - began,
        }
        self._ended = time.monotonic() if ahead else None
        row = step_row(step, self._recipe, rollouts, result, gap, times) | self._engines.since(engines)
        row |= self._interim_evaluation(step + 1)
        self._metrics.write(row)
        trajectories = [trajectory for group in rollouts.groups for trajectory in group.trajectories]
        self._rollouts.write(step, trajectories, np.concatenate(advantages), result)
        self._session.progress.step(row)
        warning = unsolved_reward(row)
        if warning and not self._warned:
            self._session.progress.note(f"step {step}: {warning}")
        self._warned = bool(warning)

    def _publish(self, version: int, ahead: bool) -> tuple[Gap, float, list[dict[str, float]]]:
        """Publish and verify; how far the workers are off, the seconds it took, and their engines' counts.

        With ``ahead`` the next step's episodes begin while the learner scores the probe; used they are only after that.
        """
        pool = self._session.pool
        publication = self._session.publisher.publish(version)
        counts = pool.ask(RolloutActor.status)
        if ahead:
            self._keep_in_flight(version)
        gap = publication.verified()
        return gap, publication.seconds, [status.engine for status in pool.answers(counts)]

    def _engine_metrics(self) -> dict[str, float]:
        """What the engines did since they were last asked."""
        return self._engines.since([status.engine for status in self._session.pool.call_all(RolloutActor.status)])

    def _evaluates_after(self, steps_done: int) -> bool:
        every = self._recipe.eval.every
        due = every > 0 and self._recipe.eval.episodes > 0 and steps_done % every == 0
        return due and steps_done != self._recipe.steps

    def _interim_evaluation(self, steps_done: int) -> dict[str, float]:
        """``eval.every`` steps, the end apart: success and reward on held-out tasks, for this step's row."""
        if not self._evaluates_after(steps_done):
            return {}
        found = self.evaluate()
        self._engine_metrics()  # nor is an evaluation
        self._ended = None
        details = {f"eval/{name}": value for name, value in found.details.items()}
        return {"eval/success": found.success, "eval/reward": found.reward, **details}

    def _keep_in_flight(self, step: int) -> None:
        """Start the batches of this step and of the ``lag`` steps after it, those that are not under way yet."""
        for ahead in range(step, min(step + self._recipe.lag, self._recipe.steps - 1) + 1):
            if not self._store.pending(ahead):
                self._store.submit(ahead, self._specs(ahead))

    def _specs(self, step: int) -> list[EpisodeSpec]:
        session, recipe = self._session, self._recipe
        tasks = tasks_of_step(session.train, recipe.batch.tasks, step, recipe.seed, session.source_weights)
        return self._episodes(step, tasks, 0)

    def _episodes(self, step: int, tasks: Sequence[Task], first_place: int) -> list[EpisodeSpec]:
        """All episodes of these tasks, which are number ``first_place`` and up among the step's."""
        recipe, size = self._recipe, self._recipe.batch.group_size
        places = recipe.batch.tasks + self._session.algorithm.refill_budget
        # Groups drawn anew go first into the engine: the step waits for them, and for nothing of the steps ahead.
        ahead = places * size if first_place else 0
        return [
            EpisodeSpec(
                task=task,
                group_id=step * places + place,
                index=index,
                seed=derive_seed(recipe.seed, step, place, index),
                temperature=recipe.rollout.temperature,
                order=place * size + index - ahead,
            )
            for place, task in enumerate(tasks, first_place)
            for index in range(size)
        ]

    def _refill(self, step: int) -> Refill | None:
        """Dynamic sampling as the algorithm wants it; None where it wants none.

        Tasks and seeds depend on the run's seed, the step and the number of the group, and on nothing else.
        """
        algorithm, width = self._session.algorithm, self._recipe.batch.tasks
        if algorithm.refill_budget == 0:
            return None
        spare = spare_tasks(self._session.train, width, step, self._recipe.seed, self._session.source_weights)
        spare = spare[: algorithm.refill_budget]
        drawn = 0

        def draw(count: int) -> list[EpisodeSpec]:
            nonlocal drawn
            tasks = spare[drawn : drawn + count]
            specs = self._episodes(step, tasks, width + drawn)
            drawn += len(tasks)
            return specs

        return Refill(algorithm.wants_refill, draw)

    def _learn(self, step: int, rollouts: StepRollouts, advantages: Sequence[NDArray[np.float64]]) -> LearnResult:
        recipe = self._recipe
        sizes = [len(group) for group in rollouts.groups]
        batch = StepBatch(
            trajectories=[],
            advantages=np.concatenate(advantages),
            group_ids=np.repeat([group.group_id for group in rollouts.groups], sizes).astype(np.int64),
            step=step,
            steps_total=recipe.steps,
            nominal_sequences=recipe.rollouts_per_step,
            max_tokens=recipe.rollout.max_context,
            lag=recipe.lag,
            seed=derive_seed(recipe.seed, step),
            temperature=recipe.rollout.temperature,
        )
        result = self._session.learner.learn(rollouts.refs, batch)
        if result.note:
            self._session.progress.note(f"step {step}: {result.note}")
        return result
