"""Quality of the gradient against n_t: bias and spread of BGPO, VRPO-OL and diffu-GRPO (the paper's figure 3 in small).

    rlpost bench bgpo_gradients --out runs/bgpo

One batch of real rollouts of a warm-started sudoku model. "On policy" is the first update of a step, where BGPO and
VRPO-OL have the same gradient; "off policy" is taken after ``--moves`` updates on the same rollouts, with the ratio to
the policy before. Gold is the exact objective at n_t = 256. Over 8 repeats with new masks: spread is the root of the
mean squared distance from their mean, bias the distance of that mean from gold, both relative to gold's norm. A mean of
8 is itself off by spread / sqrt(8); that much is taken off the bias (in squares). diffu-GRPO's gradient is scaled to
gold first, since its loss is a mean over tokens. Writes gradients.json, gradients.md and gradients.png.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlpost.algorithms.base import Algorithm, StepConstants
from rlpost.algorithms.diffu_grpo import DiffuGRPO
from rlpost.algorithms.registry import build, locate
from rlpost.benchmarks.studies.bgpo_world import World, arguments, batch, learner, parse, play, warmed
from rlpost.learner.batch import StepBatch
from rlpost.learner.config import LearnerConfig, OptimizerConfig
from rlpost.learner.learner import Learner
from rlpost.learner.optimizers import make_optimizer
from rlpost.learner.rows import score_rows
from rlpost.learner.sharding import Ranks
from rlpost.learner.update import Updater
from rlpost.learner.views import FlatBatch
from rlpost.rollout.diffusion.config import DiffusionConfig
from rlpost.rollout.diffusion.model import BlockModel

REPEATS = 8


def diffu_grpo(n_t: int) -> Algorithm:
    """The method averaged over ``n_t`` masked prompts (it has one), with a trajectory's ratio as one number."""
    base = DiffuGRPO()
    base.views = lambda trajectory, rng: [DiffuGRPO.views(base, trajectory, rng)[0] for _ in range(n_t)]  # type: ignore[method-assign]
    return base


def algorithm(name: str, n_t: int) -> Algorithm:
    """By its short name."""
    return diffu_grpo(n_t) if name == "diffu_grpo" else build(locate(name), {"n_t": n_t})


class Gradients:
    """Gradients of one batch at one point, without moving from it.

    Args:
        model: a learner whose weights are the current policy.
        step: rollouts and advantages.
        old: flat weights of the policy that the ratio is to; None: the current one.
    """

    def __init__(self, model: Learner, step: StepBatch, old: Tensor | None) -> None:
        self._policy, self._step, self._old = model.policy, step, old
        self._now = flat_weights(model)
        self._model = model

    def of(self, made: Algorithm, seed: int) -> Tensor:
        """The gradient of the loss, flat, with the masks of ``seed``."""
        device = self._policy.device
        config = LearnerConfig(
            device=device.type,
            max_tokens_per_pack=16384,
            optimizer=OptimizerConfig(name="torch.optim:SGD", lr=1.0, clip_grad=0),
        )
        ranks = Ranks(0, 1, device, "", 60.0, sharded=False)
        updater = Updater(self._policy, ranks, made, make_optimizer(self._policy.trainable(), config.optimizer), config)
        one = self._step.trajectories
        views = [made.views(each, np.random.default_rng([seed, index])) for index, each in enumerate(one)]
        flat = FlatBatch.of(self._policy.reading, one, views, self._step.advantages, device)
        if self._old is not None:
            put(self._model, self._old)
            flat.old_logprobs, _ = score_rows(self._policy, ranks, flat.rows, 16384, 1.0)
            put(self._model, self._now)
        members, tokens = list(range(len(flat.response))), int(flat.mask.sum())
        constants = StepConstants(len(members), tokens, len(members), 64, tokens)
        updater.update(flat, members, constants, self._old is None, 1.0, "gradient")
        gradient = self._now - flat_weights(self._model)
        put(self._model, self._now)
        return gradient


def flat_weights(model: Learner) -> Tensor:
    """All weights as one fp64 vector."""
    return torch.cat([weight.detach().double().flatten() for _, weight in model.policy.trainable()])


@torch.no_grad()
def put(model: Learner, flat: Tensor) -> None:
    """The inverse."""
    place = 0
    for _, weight in model.policy.trainable():
        weight.copy_(flat[place : place + weight.numel()].view_as(weight))
        place += weight.numel()


def quality(gradients: list[Tensor], gold: Tensor, scaled: bool) -> dict[str, float]:
    """Bias and spread, relative to gold's norm, and the cosine of the mean with gold."""
    mean = torch.stack(gradients).mean(0)
    scale = float(mean @ gold / (mean @ mean)) if scaled else 1.0
    norm = float(gold.norm())
    spread = (
        math.sqrt(sum(float((scale * (one - mean)).norm()) ** 2 for one in gradients) / (len(gradients) - 1)) / norm
    )
    raw = float((scale * mean - gold).norm()) / norm
    bias = math.sqrt(max(0.0, raw**2 - spread**2 / len(gradients)))
    return {"bias": bias, "bias_raw": raw, "spread": spread, "cosine": float(mean @ gold / (mean.norm() * gold.norm()))}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows: on and off policy, every method, every n_t."""
    folder = warmed(options)
    world = World.of(folder, options.empty, options.seed)
    engine = BlockModel.load(str(folder), torch.float32, options.device)
    groups = play(world, engine, DiffusionConfig(block=4, steps=2), options.tasks, 8, 0, options.seed)
    mover = build(locate("vrpo_ol"), {"n_t": 16})
    step = batch(groups, mover, 0, 1, options.seed)
    if not step.advantages.any():  # an untrained model's answers are all worth nothing
        step.advantages = np.where(np.arange(len(step.advantages)) % 2, 1.0, -1.0)
    model = learner(options, folder, mover, options.lr, dtype="fp32")
    rows: list[dict[str, Any]] = []
    old: Tensor | None = None
    for where in ("on policy", "off policy"):
        if where == "off policy":
            old = flat_weights(model)
            for _ in range(options.moves):
                model.learn(step)
        point = Gradients(model, step, old)
        gold = torch.stack(
            [point.of(algorithm("vrpo_two_pass", options.gold), 10**6 + n) for n in range(options.golds)]
        ).mean(0)
        for n_t in options.n_t:
            for name in ("bgpo", "vrpo_ol", "diffu_grpo"):
                if name == "vrpo_ol" and where == "on policy":
                    continue  # the same gradient as BGPO's
                found = [point.of(algorithm(name, n_t), 1000 * n_t + repeat) for repeat in range(options.repeats)]
                rows.append(
                    {"where": where, "algorithm": name, "n_t": n_t} | quality(found, gold, name == "diffu_grpo")
                )
                print(rows[-1], flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """One line a method and n_t."""
    lines = ["| | algorithm | n_t | bias | spread | cosine with gold |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {r['where']} | {r['algorithm']} | {r['n_t']} | {r['bias']:.3f} | {r['spread']:.3f} | {r['cosine']:.3f} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Bias and spread against n_t."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
    for axis, what in zip(axes, ("bias", "spread"), strict=True):
        for where, line in (("on policy", "--"), ("off policy", "-")):
            for name, colour in (("bgpo", "C0"), ("vrpo_ol", "C1"), ("diffu_grpo", "C3")):
                own = [r for r in rows if (r["where"], r["algorithm"]) == (where, name)]
                if own:
                    label = f"{name}, {where}"
                    axis.plot(
                        [r["n_t"] for r in own],
                        [max(0.01, r[what]) for r in own],
                        line,
                        marker="o",
                        color=colour,
                        label=label,
                    )
        axis.set(xscale="log", yscale="log", xlabel="n_t", ylabel=f"{what} / |gold|")
        axis.set_xticks(sorted({r["n_t"] for r in rows}), [str(n) for n in sorted({r["n_t"] for r in rows})])
    axes[1].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure and write."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", type=int, default=2, help="grids of the batch, 8 answers each")
    parser.add_argument("--n-t", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--gold", type=int, default=256)
    parser.add_argument("--golds", type=int, default=1, help="gold is a mean of so many gradients at n_t = gold")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--moves", type=int, default=3)
    parser.add_argument("--lr", type=float, default=3e-5, help="of the moves; a ratio of ELBOs is sensitive")
    options = parse(parser)
    if options.tiny:
        options.warm_steps, options.n_t, options.gold, options.repeats = 3, [1, 2], 8, 2
    rows = measure(options)
    (options.out / "gradients.json").write_text(json.dumps(rows, indent=1))
    (options.out / "gradients.md").write_text(table(rows))
    plot(rows, options.out / "gradients.png")
    print(table(rows))


if __name__ == "__main__":
    main()
