"""What the BGPO benchmarks share: a small diffusion model warmed up on 4x4 sudoku, rollouts, and evaluation.

Everything runs in one process on the project's own parts: the warm start's loss, the engine's decoder, the learner.
Left out: Ray, which recipes/bgpo_sudoku.yaml goes through.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from rlpost.algorithms.base import Algorithm
from rlpost.envs.base import Task
from rlpost.envs.sudoku import Sudoku
from rlpost.learner.attention import NAME as PACKED
from rlpost.learner.batch import LearnerSetup, StepBatch
from rlpost.learner.config import BuildConfig, LearnerConfig, ModelConfig, OptimizerConfig
from rlpost.learner.learner import Learner
from rlpost.learner.model import load_model
from rlpost.learner.sharding import Ranks
from rlpost.learner.source import materialise
from rlpost.rollout.chat import ChatFormat, load_format
from rlpost.rollout.diffusion.config import DiffusionConfig
from rlpost.rollout.diffusion.decode import Row, decode
from rlpost.rollout.diffusion.model import BlockModel
from rlpost.rollout.engine import Sample
from rlpost.rollout.trajectory import Group, StopReason, Trajectory, Turn
from rlpost.rollout.transport.registry import find
from rlpost.rollout.weight_update import DEFAULT_TRANSPORT
from rlpost.sampling import derive_seed, tasks_of_step
from rlpost.warm_start_data import Conversation, tokenize
from rlpost.warm_start_diffusion import as_example, backward

COOL_DOWN = 25
"""Steps over which the warm start's learning rate falls to 0 once the model is good enough."""
LENGTH = 20
"""Tokens of a response: 16 digits, then end tokens."""


def arguments(description: str) -> argparse.ArgumentParser:
    """The options all these benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes; its numbers mean nothing")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--empty", type=int, default=4, help="empty cells of a grid")
    parser.add_argument("--warm-steps", type=int, default=400, help="steps of the warm start, at most")
    parser.add_argument("--warm-until", type=float, default=1.0, help="grids solved at T = 1 that end the warm start")
    parser.add_argument("--noise", type=float, default=0.4, help="share of a demonstration's cells that are random")
    parser.add_argument("--model-seed", type=int, default=0, help="of the warm-started model, which all runs share")
    parser.add_argument("--warm-lr", type=float, default=2e-3)
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse, and make ready to run."""
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    return options


@dataclass(slots=True)
class World:
    """Grids of one difficulty as token ids."""

    chat: ChatFormat
    empty: int
    train: Sequence[Task]
    held_out: Sequence[Task]

    @classmethod
    def of(cls, folder: Path, empty: int, seed: int) -> World:
        """With the tokenizer of a model folder."""
        chat = load_format(str(folder), "plain", 64, "\n", False)
        made = {"empty": empty, "bare": True}
        return cls(chat, empty, Sudoku.tasks("train", seed, **made), Sudoku.tasks("eval", seed, **made))

    def demonstrations(self, seed: int, count: int, noise: float) -> list[Conversation]:
        """Filled-in grids, some cells of them wrong."""
        found = Sudoku.demonstrations("train", seed, count, empty=self.empty, bare=True, noise=noise)
        return [tokenize(one.messages, self.chat) for one in found]

    def row(self, task: Task, temperature: float, seed: int) -> Row:
        """The request for one answer."""
        return Row(self.chat.opening(self._env(task).start()), temperature, seed)

    def score(self, task: Task, sample: Sample) -> tuple[float, bool]:
        """Reward and whether the grid is solved."""
        env = self._env(task)
        env.step(self.chat.decode(sample.token_ids.tolist()))
        score = env.score()
        return score.reward, score.solved

    def _env(self, task: Task) -> Sudoku:
        return Sudoku(task, 0, bare=True, strict=True)


def built(options: argparse.Namespace, folder: Path, seed: int) -> Path:
    """A diffusion model with random weights."""
    build = BuildConfig(
        hidden=options.hidden,
        layers=options.layers,
        heads=max(4, options.hidden // 64),
        intermediate=2 * options.hidden,
        initializer_range=0.05,
    )
    return materialise(ModelConfig(build=build), folder, seed, "diffusion")


def warmed(options: argparse.Namespace) -> Path:
    """A model folder after the warm start; made once for each set of options."""
    seed = options.model_seed
    name = f"model-{options.hidden}x{options.layers}-{options.empty}-{options.noise}-{options.warm_steps}-{seed}"
    folder = options.out / name
    if (folder / "done").exists():
        return folder
    world = World.of(built(options, folder, seed), options.empty, seed)
    gpu = options.device != "cpu"
    ranks = Ranks(0, 1, torch.device(options.device), "", 60.0, sharded=False)
    policy = load_model(folder, LearnerConfig(device=options.device, dtype="fp32"), ranks, seed=seed)
    examples = [
        as_example(one, LENGTH, world.chat.stop_token_ids[0]) for one in world.demonstrations(seed, 3800, options.noise)
    ]
    weights = [weight for _, weight in policy.trainable()]
    optimizer = torch.optim.AdamW(weights, lr=options.warm_lr, weight_decay=0.0)
    rng, last = np.random.default_rng(seed), options.warm_steps
    for step in range(options.warm_steps):
        if step >= last:
            break
        for group in optimizer.param_groups:
            group["lr"] = options.warm_lr * min(1.0, (step + 1) / 15, (last - step) / COOL_DOWN)
        chosen = rng.integers(len(examples), size=256 if gpu else 64)
        backward(policy, [examples[index] for index in chosen], 65536 if gpu else 16384, rng)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 25 == 0 and last == options.warm_steps:
            solved, _ = evaluate(world, BlockModel(policy.model), DiffusionConfig(block=4, steps=2), 128, 1.0)
            policy.model.set_attn_implementation(PACKED)
            last = step + 1 + COOL_DOWN if solved >= options.warm_until else last
    print(f"warm after {min(last, options.warm_steps)} steps", flush=True)
    policy.model.save_pretrained(folder)
    (folder / "done").touch()
    return folder


def learner(
    options: argparse.Namespace, folder: Path, algorithm: Algorithm, lr: float, dtype: Literal["auto", "fp32"] = "auto"
) -> Learner:
    """A learner of its own on ``folder``; bf16 on a GPU unless ``dtype`` says otherwise."""
    config = LearnerConfig(
        device=options.device,
        dtype=dtype,
        optimizer=OptimizerConfig(lr=lr),
        max_tokens_per_pack=16384 if options.device == "cpu" else 65536,
    )
    return Learner(LearnerSetup(folder, config), algorithm=algorithm)


@torch.no_grad()
def synchronise(engine: BlockModel, source: Learner) -> None:
    """Give the engine the learner's weights."""
    weights = dict(engine.model.named_parameters())
    for name, sent in find(DEFAULT_TRANSPORT).tensors(source.weights(0)):
        weights[name].copy_(sent)


def evaluate(
    world: World, engine: BlockModel, decoding: DiffusionConfig, episodes: int, temperature: float
) -> tuple[float, float]:
    """Share of held-out grids solved, and of empty cells right."""
    tasks = world.held_out[:episodes]
    rows = [world.row(task, temperature, 10_000 + index) for index, task in enumerate(tasks)]
    samples = decode(engine, rows, LENGTH, decoding, world.chat.stop_token_ids)
    scores = [world.score(task, sample) for task, sample in zip(tasks, samples, strict=True)]
    return float(np.mean([solved for _, solved in scores])), float(np.mean([reward for reward, _ in scores]))


def play(
    world: World, engine: BlockModel, decoding: DiffusionConfig, tasks: int, group: int, step: int, seed: int
) -> list[Group]:
    """One step's rollouts."""
    chosen = tasks_of_step(world.train, tasks, step, seed)
    plan = [(place, index) for place in range(tasks) for index in range(group)]
    rows = [world.row(chosen[place], 1.0, derive_seed(seed, step, place, index)) for place, index in plan]
    samples = decode(engine, rows, LENGTH, decoding, world.chat.stop_token_ids)
    made: list[list[Trajectory]] = [[] for _ in range(tasks)]
    for (place, index), row, sample in zip(plan, rows, samples, strict=True):
        reward, solved = world.score(chosen[place], sample)
        made[place].append(trajectory(row.prompt, sample, reward, solved, place, index))
    return [Group(place, chosen[place].id, group) for place, group in enumerate(made)]


def trajectory(
    prompt: Sequence[int], sample: Sample, reward: float, solved: bool, place: int, index: int
) -> Trajectory:
    """The record of one answer."""
    start, end = len(prompt), len(prompt) + len(sample.token_ids)
    mask = np.arange(end) >= start
    return Trajectory(
        token_ids=np.array([*prompt, *sample.token_ids], dtype=np.int32),
        policy_mask=mask,
        rollout_logprobs=np.concatenate([np.full(start, np.nan, dtype=np.float32), sample.logprobs]),
        versions=np.where(mask, 0, -1).astype(np.int32),
        turns=[Turn(start, end)],
        reward=reward,
        reward_parts={},
        success=solved,
        stop=StopReason.DONE,
        task_id=str(place),
        group_id=place,
        index=index,
        seed=0,
    )


def batch(groups: Sequence[Group], algorithm: Algorithm, step: int, steps: int, seed: int) -> StepBatch:
    """What the learner is given."""
    trajectories = [one for group in groups for one in group.trajectories]
    return StepBatch(
        trajectories=trajectories,
        advantages=np.concatenate(algorithm.advantages(groups)),
        group_ids=np.array([one.group_id for one in trajectories], dtype=np.int64),
        step=step,
        steps_total=steps,
        nominal_sequences=len(trajectories),
        max_tokens=64,
        seed=derive_seed(seed, step),
    )
