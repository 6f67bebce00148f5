"""Evaluation on held-out tasks through the training run's own workers: sampled at T = 1, and greedy.

Left out: named benchmarks and pass@k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlpost.envs.base import Task
from rlpost.goals import goal_completion
from rlpost.report.statistics import wilson_interval
from rlpost.rollout.specs import EpisodeSpec
from rlpost.sampling import EVAL_STREAM, derive_seed
from rlpost.step_metrics import environment_means
from rlpost.store import refuse_failures
from rlpost.workers import WorkerPool


@dataclass(frozen=True, slots=True)
class EvalResult:
    """Success over one evaluation; failed episodes count as unsolved.

    Attributes:
        success: share of episodes solved.
        episodes: how many were played.
        ci95: Wilson 95 % interval of ``success``.
        reward: mean reward of the episodes that were scored.
        failed: episodes lost to a fault.
        details: task and scenario goal completion (see ``goals``), and means of the environment's own numbers.
    """

    success: float
    episodes: int
    ci95: tuple[float, float]
    reward: float
    failed: int
    details: dict[str, float] = field(default_factory=dict)


def evaluate(
    pool: WorkerPool,
    tasks: Sequence[Task],
    episodes: int,
    seed: int,
    deterministic: bool,
    tolerated_failures: float,
    *,
    greedy: bool = False,
) -> EvalResult:
    """Play ``episodes`` episodes over the tasks in order (again from the first where there are fewer tasks).

    The seeds do not depend on the step, so evaluations before and after training are paired.

    Raises:
        RunError: a fault that is not one episode's alone, or more than the tolerated share of failed episodes.
    """
    specs = [
        EpisodeSpec(
            task=tasks[i % len(tasks)],
            group_id=-1 - i,
            index=0,
            seed=derive_seed(seed, EVAL_STREAM, i),
            greedy=greedy,
            order=i,
        )
        for i in range(episodes)
    ]
    if deterministic:
        pool.begin(len(specs))
    flights = pool.submit(specs)
    while any(flight.summary is None for flight in flights):
        pool.poll(flights, 1.0)
    summaries = [flight.summary for flight in flights if flight.summary is not None]
    refuse_failures(summaries, episodes, tolerated_failures, "evaluation")
    solved = sum(summary.success for summary in summaries)
    scored = [summary.reward for summary in summaries if summary.usable]
    return EvalResult(
        success=solved / episodes,
        episodes=episodes,
        ci95=wilson_interval(solved, episodes),
        reward=sum(scored) / len(scored) if scored else float("nan"),
        failed=sum(summary.failed for summary in summaries),
        details=goal_completion(summaries) | environment_means(summaries),
    )
