"""Run folders as a training run leaves them, made from real trajectories with random numbers in their arrays.

Left out: models and tokenizers; the vocabulary here is whatever words come up.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlpost.report import EvalSummary, MetricsWriter, ResultRecord, RolloutWriter, package_versions, write_result
from rlpost.rollout.trajectory import StopReason, Trajectory, Turn

HOSTILE = "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'><!-- \u202e\0 naïve 🦊"
"""What a model might write that a careless page would run."""

RECIPE = """\
model:
  build:
    family: qwen2
    hidden: 256
    layers: 3
env:
  name: rlpost.envs.accounts:Accounts
  options:
    apps: 2
algorithm:
  name: loop
  clip: 0.2
steps: 30
seed: 0
lag: 0
batch:
  tasks: 16
  group_size: 8
rollout:
  temperature: 1.0
  max_turns: 5
learner:
  optimizer:
    lr: 0.0003
"""


class Vocabulary:
    """Words to ids and back; both grow as text comes in."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def encode(self, text: str) -> list[int]:
        """Ids of the pieces of a text; joined, the pieces are the text."""
        pieces = re.findall(r"<\|\w+\|>|\s?\w+|\s|[^\w\s]", text)
        for piece in pieces:
            if piece not in self.words:
                self.words.append(piece)
        return [self.words.index(piece) for piece in pieces]

    def __call__(self, token_ids: list[int]) -> list[str]:
        return [self.words[token] for token in token_ids]


@dataclass
class LearnedFromAll:
    """Stands where the learner's result stands."""

    kept: NDArray[np.int64]
    old_logprobs: list[NDArray[np.float32] | None]


def play(
    vocabulary: Vocabulary, rng: np.random.Generator, step: int, group: int, index: int, skill: float
) -> Trajectory:
    """One episode of a pretended world of two apps."""
    name, amount = ["acd", "bfe", "cab", "dea"][group % 4], int(10 + group * 7 % 80)
    ids: list[int] = []
    turns: list[Turn] = []
    solved = bool(rng.random() < skill)
    opening = f"<|user|>\nPay {name} exactly {amount}. Apps: f, g. End with d.<|end|>\n<|assistant|>\n"
    actions = [f"f {name}", f"g {name}", f"p {amount + 3 * (not solved)} {amount}", "d"]
    ids += vocabulary.encode(opening)
    for action in actions[: 4 if solved else int(rng.integers(1, 5))]:
        start = len(ids)
        ids += vocabulary.encode(action + "<|end|>")
        turns.append(Turn(start, len(ids), truncated=bool(rng.random() < 0.03)))
        ids += vocabulary.encode(f"\n<|user|>\nid {group % 9}{index} in app {action[0]}<|end|>\n<|assistant|>\n")
    ids = ids[: turns[-1].end]
    stop = StopReason.DONE if solved or len(turns) == 4 else StopReason.TURN_LIMIT
    return trajectory(rng, ids, turns, step, group, index, float(solved), stop)


def trajectory(
    rng: np.random.Generator,
    ids: list[int],
    turns: list[Turn],
    step: int,
    group: int,
    index: int,
    reward: float,
    stop: StopReason,
    error: str = "",
) -> Trajectory:
    """Random log-probs and the given rest; T is ``len(ids)``."""
    mask = np.zeros(len(ids), dtype=np.bool_)
    for turn in turns:
        mask[turn.start : turn.end] = True
    logprobs = np.where(mask, -rng.exponential(0.5, len(ids)), np.nan).astype(np.float32)
    return Trajectory(
        token_ids=np.array(ids, dtype=np.int32),
        policy_mask=mask,
        rollout_logprobs=logprobs,
        versions=np.where(mask, step, -1).astype(np.int32),
        turns=turns,
        reward=reward,
        reward_parts={} if np.isnan(reward) else {"payment": reward, "tidy": 0.0},
        success=reward >= 1,
        stop=stop,
        task_id=f"pay-{group:04d}",
        group_id=group,
        index=index,
        seed=int(rng.integers(2**62)),
        source="accounts",
        metrics={"calls": float(len(turns))},
        error=error,
        wall_s=float(rng.uniform(0.1, 0.9)),
    )


def hostile_trajectory(vocabulary: Vocabulary, rng: np.random.Generator, step: int) -> Trajectory:
    """An episode whose text, task and error all try to break the page."""
    prompt, answer = vocabulary.encode("<|user|>\nSay something.\n<|assistant|>\n"), vocabulary.encode(HOSTILE)
    ids = prompt + answer
    turns = [Turn(len(prompt), len(ids))]
    made = trajectory(rng, ids, turns, step, 9999, 0, float("nan"), StopReason.ENV_FAILED, error=f"raised {HOSTILE}")
    made.task_id = "<b>hostile</b>"
    return made


def learned(
    rng: np.random.Generator, trajectories: list[Trajectory], advantages: NDArray[np.float64]
) -> LearnedFromAll:
    """Log-probs of a learner close to the engine; those of rejected trajectories were not computed."""
    kept = np.flatnonzero(np.abs(np.nan_to_num(advantages)) >= 0.01)
    noise = [made.rollout_logprobs + rng.normal(0, 10 ** rng.uniform(-7, -1), len(made)) for made in trajectories]
    logprobs = [values.astype(np.float32) if place in kept else None for place, values in enumerate(noise)]
    return LearnedFromAll(kept, logprobs)


def metrics_row(rng: np.random.Generator, step: int, skill: float, episodes: int) -> dict[str, object]:
    """A row with the keys every run has."""
    times = {
        "time/rollout_s": 0.5 + 0.1 * rng.random(),
        "time/learn_s": 0.25 + 0.05 * rng.random(),
        "time/sync_s": 0.017,
    }
    return {
        "step": step,
        "policy_version": step + 1,
        "lag": 0,
        "reward/mean": skill + 0.03 * rng.normal(),
        "reward/std": float(np.sqrt(skill * (1 - skill))),
        "success/mean": float(np.clip(skill + 0.03 * rng.normal(), 0, 1)),
        "loss": 0.02 * rng.normal(),
        "grad_norm": float(0.4 * np.exp(0.4 * rng.normal())) if step != 7 else float("nan"),
        "kl_old": float(1e-3 * np.exp(rng.normal())),
        "clip_fraction": float(0.05 * rng.random()),
        "entropy": 1.1 * np.exp(-step / 12) + 0.1 + 0.02 * rng.normal(),
        "gap/logprob_abs": float(2e-7 * np.exp(0.2 * rng.normal())),
        "gap/kl": float(1e-9 * np.exp(rng.normal())),
        "offpolicy/ess": 1.0,
        "offpolicy/kl": 0.0,
        **times,
        "time/step_s": sum(times.values()) + 0.04,
        "tokens/rollout": int(3000 + 50 * rng.normal()),
        "tokens/learned": int(1800 + 50 * rng.normal()),
        "episodes": episodes,
        "episodes/failed": int(rng.random() < 0.1),
        "stop/done": int(episodes * skill),
        "stop/turn_limit": episodes - int(episodes * skill),
        "env/calls": 3.0 + rng.random(),
        "lr": 3e-4 * (1 - step / 40),
    }


def make_run(
    folder: Path, steps: int = 12, groups: int = 2, size: int = 8, finished: bool = True, hostile: bool = True
) -> Path:
    """A run folder with ``steps`` steps of ``groups * size`` logged rollouts each, and one hostile rollout."""
    rng = np.random.default_rng(7)
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE.replace("steps: 30", f"steps: {steps}"))
    vocabulary = Vocabulary()
    with MetricsWriter(folder, first_step=0) as metrics:
        rollouts = RolloutWriter(folder, vocabulary)
        for step in range(steps):
            skill = 0.08 + 0.85 / (1 + np.exp(-(step - steps / 2) / (steps / 9)))
            batch = [
                play(vocabulary, rng, step, step * groups + g, i, skill) for g in range(groups) for i in range(size)
            ]
            rewards = np.array([made.reward for made in batch]).reshape(groups, size)
            advantages = (size / (size - 1) * (rewards - rewards.mean(axis=1, keepdims=True))).ravel()
            if hostile and step == steps - 1:
                batch.append(hostile_trajectory(vocabulary, rng, step))
                advantages = np.append(advantages, np.nan)
            rollouts.write(step, batch, advantages, learned(rng, batch, advantages))
            metrics.write(metrics_row(rng, step, float(skill), 128))
    if finished:
        evaluations = [EvalSummary.of(count, 256) for count in (19, 238, 0, 246)]
        write_result(folder, ResultRecord(steps, 83.4, 0, package_versions(), *evaluations))
    else:
        summary = EvalSummary.of(19, 256)
        content = {
            "before": {"success": summary.success, "episodes": 256, "ci95": summary.ci95, "reward": 0.1, "failed": 0}
        }
        (folder / "evaluations.json").write_text(json.dumps(content))
    return folder
