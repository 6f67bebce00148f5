"""Many training runs in one process on one engine: each has a learner of its own, in this process, and starts from its
own weights by publication. What is measured is the product's: controller, store, engine, learner, verified publication.

Used by d3s_cpu.py, d3s_gpu.py and agents_runs.py. Left out: the learner's own actor (a run then starts in a second
instead of ten), and checkpoints.
"""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from rich.console import Console

from rlpost import session
from rlpost.algorithms.registry import build
from rlpost.cluster import ray_cluster
from rlpost.controller import Controller
from rlpost.envs.base import Task
from rlpost.learner.batch import LearnResult, StepBatch
from rlpost.learner.learner import Learner
from rlpost.placement import Placement, place
from rlpost.progress import Progress
from rlpost.recipe import LoadedRecipe
from rlpost.report import MetricsWriter, RolloutWriter
from rlpost.rollout.specs import EpisodeSpec
from rlpost.runfolder import RunFolder
from rlpost.sampling import derive_seed
from rlpost.tasks import load_tasks
from rlpost.workers import WorkerPool


class LocalLearner:
    """A learner in this process behind the methods of ``LearnerGroup`` that a run calls."""

    def __init__(self, loaded: LoadedRecipe, model: Path, placement: Placement) -> None:
        torch.set_num_threads(loaded.recipe.learner.threads or torch.get_num_threads())
        setup = session.learner_setup(loaded, model, placement)
        self._learner = Learner(setup, algorithm=build(loaded.algorithm, loaded.algorithm_options))
        self.vocabulary = self._learner.vocabulary

    def learn(self, refs: Sequence[ray.ObjectRef], batch: StepBatch) -> LearnResult:
        """One learning step."""
        return self._learner.learn(replace(batch, trajectories=ray.get(list(refs))))

    def score(self, sequences: Sequence[Sequence[int]], temperature: float = 1.0) -> list[Any]:
        """Log-probs of tokens."""
        return self._learner.score(sequences, temperature)

    def publish(self, version: int) -> list[ray.ObjectRef]:
        """The current weights."""
        return [ray.put(self._learner.weights(version))]

    def save(self, folder: Path) -> None:
        """The weights of these runs are not kept."""

    def close(self) -> None:
        """Free the model."""
        self._learner.close()


@contextlib.contextmanager
def local_run(
    loaded: LoadedRecipe, model: Path, folder: Path, pool: WorkerPool, progress: Progress
) -> Iterator[Controller]:
    """A controller whose policy starts from the weights in ``model``, published to the engine of ``pool``."""
    placement = place(loaded.recipe)
    train, held_out = load_tasks(loaded)
    learner: Any = LocalLearner(loaded, model, placement)
    publisher = session.first_publication(loaded, placement, learner, pool, 0)
    algorithm, run_folder = loaded.built, RunFolder(folder)
    running = session.Session(loaded, run_folder, model, progress, algorithm, train, held_out, learner, pool, publisher)
    metrics = MetricsWriter(folder)
    try:
        yield Controller(running, metrics, RolloutWriter(folder, lambda ids: [], 0))
    finally:
        metrics.close()
        learner.close()


@dataclass(slots=True)
class Run:
    """One finished run.

    Attributes:
        rows: its rows of metrics.jsonl.
        evaluations: (steps done, share of held-out episodes solved), the one before training first.
        measured: what ``before`` gave before the first step, and ``after`` after the last.
    """

    rows: list[dict[str, Any]]
    evaluations: list[tuple[int, float]]
    measured: list[Any]


class OneEngine:
    """The engine that all runs share.

    Args:
        pool: its worker.
        progress: notes of the runs go here.
    """

    def __init__(self, pool: WorkerPool, progress: Progress) -> None:
        self._pool = pool
        self._progress = progress

    def run(
        self,
        loaded: LoadedRecipe,
        model: Path,
        seconds: float = math.inf,
        before: Callable[[], Any] = lambda: None,
        after: Callable[[], Any] = lambda: None,
    ) -> Run:
        """All steps of the recipe, or as many as fit into ``seconds``, evaluated every ``eval.every`` steps and at both
        ends, where ``before`` and ``after`` are called."""
        steps, started = loaded.recipe.steps, time.monotonic()
        with (
            tempfile.TemporaryDirectory() as name,
            local_run(loaded, model, Path(name), self._pool, self._progress) as controller,
        ):
            evaluations, measured = [(0, controller.evaluate().success)], [before()]
            for step in range(steps):
                controller.step(step)
                if step + 1 == steps or time.monotonic() - started > seconds:
                    evaluations.append((step + 1, controller.evaluate().success))
                    break
            measured.append(after())
            rows = [json.loads(line) for line in (Path(name) / "metrics.jsonl").read_text().splitlines()]
        between = [(row["step"] + 1, row["eval/success"]) for row in rows if "eval/success" in row]
        return Run(rows, sorted(dict(evaluations + between).items()), measured)

    def play(self, tasks: Sequence[Task], samples: int, seed: int, greedy: bool = False) -> NDArray[np.bool_]:
        """(tasks, samples) whether each episode with the current weights solved its task."""
        specs = [
            EpisodeSpec(task, group_id=-1 - place, index=index, seed=derive_seed(seed, place, index), greedy=greedy)
            for place, task in enumerate(tasks)
            for index in range(samples)
        ]
        flights = self._pool.submit(specs)
        while any(flight.summary is None for flight in flights):
            self._pool.poll(flights, 1.0)
        solved = [flight.summary is not None and flight.summary.success for flight in flights]
        return np.array(solved, dtype=bool).reshape(len(tasks), samples)


@contextlib.contextmanager
def one_engine(loaded: LoadedRecipe, model: Path) -> Iterator[OneEngine]:
    """Start Ray and one engine with the model of ``model``; both end on the way out."""
    with (
        ray_cluster(loaded.recipe.cluster.address, loaded.packages) as ray_is_up,
        Progress(0, Console(quiet=True)) as progress,
    ):
        ray_is_up()
        pool = session.start_workers(loaded, model, place(loaded.recipe), progress)
        try:
            pool.wait_ready()
            yield OneEngine(pool, progress)
        finally:
            pool.close()
