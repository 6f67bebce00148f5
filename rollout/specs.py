"""The records that cross between the controller and a rollout worker: what to play, with what, and what came of it.

Left out: the trajectory itself (rollout/trajectory.py), which stays in the object store until the learner wants it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rlpost.envs.base import Task
from rlpost.reward.plugins import Plugin
from rlpost.rollout.config import RolloutConfig
from rlpost.rollout.trajectory import StopReason, Trajectory

REWARD_ERROR = "reward: "
"""``error`` of an episode starts with this where its reward function raised or returned no finite number. That is a
bug of the recipe, met by every episode, so the run stops with this message rather than count it as a failure."""


@dataclass(frozen=True, slots=True)
class EpisodeSpec:
    """One episode to be played.

    Attributes:
        task: what to solve.
        group_id: the group within the run; ``index``: this episode's place in it.
        seed: every random draw of the episode (environment and sampling) derives from it.
        temperature: sampling temperature, > 0.
        greedy: take the most likely token instead (evaluation only).
        order: where the episode stands among those of its step; admitted to the engine in this order.
        setting: key of ``WorkerSetup.settings``; empty: the worker's own.
    """

    task: Task
    group_id: int
    index: int
    seed: int
    temperature: float = 1.0
    greedy: bool = False
    order: int = 0
    setting: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """What an episode is played in; a worker may serve several, as an evaluation of several benchmarks asks for.

    Attributes:
        env: the Env class; ``env_options``: its keyword arguments.
        config: the bounds of an episode, and the chat format.
        stop: texts that end a turn; the environment sees the turn up to the first of them.
        logprobs: whether the log-probabilities of sampled tokens are wanted.
    """

    env: Plugin
    config: RolloutConfig
    env_options: dict[str, Any] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    logprobs: bool = True


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """All a worker needs to build its engine and its environments.

    Attributes:
        model_folder: Hugging Face folder with the tokenizer (and the weights, where the engine loads them).
        engine: a callable ``(**engine_options) -> Engine``.
        engine_options: its keyword arguments; the worker adds ``stop_token_ids``.
        env: the Env class; ``env_options``: the recipe's ``env.options``.
        config: the recipe's ``rollout`` section.
        trust_remote_code: whether Python code that comes with the tokenizer may run.
        deterministic: lock-step sampling: ``begin`` is called before a step's episodes are sent.
        worker: number of this worker, for messages.
        settings: what episodes that name a setting are played in.
    """

    model_folder: str
    engine: Plugin
    env: Plugin
    config: RolloutConfig
    engine_options: dict[str, Any] = field(default_factory=dict)
    env_options: dict[str, Any] = field(default_factory=dict)
    trust_remote_code: bool = False
    deterministic: bool = False
    worker: int = 0
    settings: dict[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Summary:
    """The small part of a trajectory that travels to the controller; names as in Trajectory.

    ``tokens`` is T, ``turns`` and ``truncated_turns`` are counts, ``version_min`` and ``version_max`` span the
    policy tokens (-1 where there are none), ``abandoned_threads`` is the worker's count when the episode ended and
    ``worn_out`` says that these are too many: restart the worker at the next chance.
    """

    group_id: int
    index: int
    task_id: str
    seed: int
    reward: float
    reward_parts: dict[str, float]
    success: bool
    stop: StopReason
    usable: bool
    failed: bool
    tokens: int
    policy_tokens: int
    turns: int
    truncated_turns: int
    version_min: int
    version_max: int
    metrics: dict[str, float]
    error: str
    wall_s: float
    source: str
    scenario: str
    difficulty: int
    worker: int = 0
    abandoned_threads: int = 0
    worn_out: bool = False

    @property
    def reward_bug(self) -> bool:
        """Whether the reward function itself failed; see REWARD_ERROR."""
        return self.error.startswith(REWARD_ERROR)


def summarize(trajectory: Trajectory, worker: int = 0, abandoned_threads: int = 0, worn_out: bool = False) -> Summary:
    """The summary of a finished episode."""
    versions = trajectory.versions[trajectory.policy_mask]
    return Summary(
        group_id=trajectory.group_id,
        index=trajectory.index,
        task_id=trajectory.task_id,
        seed=trajectory.seed,
        reward=trajectory.reward,
        reward_parts=trajectory.reward_parts,
        success=trajectory.success,
        stop=trajectory.stop,
        usable=trajectory.usable,
        failed=trajectory.failed,
        tokens=len(trajectory),
        policy_tokens=trajectory.policy_tokens,
        turns=len(trajectory.turns),
        truncated_turns=sum(turn.truncated for turn in trajectory.turns),
        version_min=int(versions.min()) if len(versions) else -1,
        version_max=int(versions.max()) if len(versions) else -1,
        metrics=trajectory.metrics,
        error=trajectory.error,
        wall_s=trajectory.wall_s,
        source=trajectory.source,
        scenario=trajectory.scenario,
        difficulty=trajectory.difficulty,
        worker=worker,
        abandoned_threads=abandoned_threads,
        worn_out=worn_out,
    )


@dataclass(frozen=True, slots=True)
class RunningEpisode:
    """An episode in flight: on what task, in which call (``phase``), for how many seconds."""

    group_id: int
    index: int
    task_id: str
    phase: str
    phase_s: float
    episode_s: float


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What a worker is doing, for fault messages and the progress display.

    ``running`` includes those that wait for a place (phase "waiting"; ``waiting`` is their number). ``engine`` holds
    the engine's own numbers where it offers ``stats() -> dict[str, float]``.
    """

    worker: int
    version: int
    waiting: int
    running: Sequence[RunningEpisode]
    played: int
    abandoned_threads: int
    engine: dict[str, float] = field(default_factory=dict)
