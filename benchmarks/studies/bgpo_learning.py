"""BGPO, VRPO-OL and diffu-GRPO on 4x4 sudoku from the same warm-started models, seed by seed: grids solved.

    rlpost bench bgpo_learning --out runs/bgpo --empty 6 --noise 0 --warm-until 0.12

For a GPU: ``--hidden 512 --layers 8 --empty 8 --warm-steps 1500 --warm-lr 5e-4 --group 16 --steps 60`` (docs/bgpo.md).
One line a run goes into learning.jsonl; runs that have theirs are not run again, and none begins after ``--budget-s``.
Writes learning.md. Left out: Ray (recipes/bgpo_sudoku.yaml).
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from typing import Any

import torch

from rlpost.algorithms.registry import build, locate
from rlpost.benchmarks.studies.bgpo_world import (
    World,
    arguments,
    batch,
    evaluate,
    learner,
    parse,
    play,
    synchronise,
    warmed,
)
from rlpost.rollout.diffusion.config import DiffusionConfig
from rlpost.rollout.diffusion.model import BlockModel

METHODS = {"bgpo": 16, "vrpo_ol": 4, "diffu_grpo": 1}
"""Algorithms, and their n_t in the paper."""


def one_run(options: argparse.Namespace, name: str, seed: int, lr: float) -> dict[str, Any]:
    """Train once; exact-solve and cells right before and after, sampled at T = 1 and greedy."""
    folder = warmed(options)
    world = World.of(folder, options.empty, seed)
    algorithm = build(locate(name), {} if name == "diffu_grpo" else {"n_t": METHODS[name]})
    trainer = learner(options, folder, algorithm, lr)
    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16
    engine = BlockModel.load(str(folder), dtype, options.device)
    decoding = DiffusionConfig(block=4, steps=options.block_steps)
    row: dict[str, Any] = {"seed": seed, "algorithm": name, "lr": lr, "n_t": METHODS[name], "steps": options.steps}
    times, curve = {"rollout_s": 0.0, "learn_s": 0.0}, []
    known = folder / f"before-{options.eval}.json"  # all runs begin with this model
    if not known.exists():
        known.write_text(json.dumps(both_ways(world, engine, decoding, options.eval, "before")))
    row |= json.loads(known.read_text())
    for step in range(options.steps):
        synchronise(engine, trainer)
        started = time.perf_counter()
        groups = play(world, engine, decoding, options.tasks, options.group, step, seed)
        played = time.perf_counter()
        trainer.learn(batch(groups, algorithm, step, options.steps, seed))
        times["rollout_s"] += played - started
        times["learn_s"] += time.perf_counter() - played
        curve.append(sum(one.success for group in groups for one in group.trajectories) / options.tasks / options.group)
    synchronise(engine, trainer)
    row |= both_ways(world, engine, decoding, options.eval, "after")
    trainer.close()
    return row | {key: value / options.steps for key, value in times.items()} | {"curve": curve}


def both_ways(
    world: World, engine: BlockModel, decoding: DiffusionConfig, episodes: int, when: str
) -> dict[str, float]:
    """Grids solved and mean reward, sampled at T = 1 and greedy."""
    found: dict[str, float] = {}
    for kind, heat in (("sampled", 1.0), ("greedy", 0.0)):
        found[f"{when}/{kind}"], found[f"{when}/{kind}_reward"] = evaluate(world, engine, decoding, episodes, heat)
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, with the standard deviation over seeds."""
    lines = [
        "| algorithm | lr | n_t | seeds | solved before | after, T = 1 | gain | greedy | s a step, rollout + learner |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for lr, name in sorted({(row["lr"], row["algorithm"]) for row in rows}):
        own, n_t = [row for row in rows if (row["lr"], row["algorithm"]) == (lr, name)], METHODS[name]
        gains = [row["after/sampled"] - row["before/sampled"] for row in own]
        cells = [[row[key] for row in own] for key in ("before/sampled", "after/sampled")]
        cells += [gains, [row["after/greedy"] for row in own]]
        seconds = [statistics.mean(row[key] for row in own) for key in ("rollout_s", "learn_s")]
        shown = " | ".join(f"{100 * statistics.mean(c):.1f} ± {100 * statistics.pstdev(c):.1f} %" for c in cells)
        lines.append(f"| {name} | {lr:g} | {n_t} | {len(own)} | {shown} | {seconds[0]:.2f} + {seconds[1]:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, then write the table."""
    started = time.monotonic()
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--algorithms", nargs="+", default=list(METHODS))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-4])
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--block-steps", type=int, default=2, help="unmasking steps of a block of 4 cells")
    parser.add_argument("--eval", type=int, default=256)
    parser.add_argument("--budget-s", type=float, default=float("inf"), help="no run begins after so many seconds")
    options = parse(parser)
    if options.tiny:
        options.warm_steps, options.steps, options.seeds, options.eval, options.tasks = 3, 2, [0], 8, 2
    file = options.out / "learning.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(row["seed"], row["lr"], row["algorithm"]) for row in rows}
    for seed, lr, name in itertools.product(options.seeds, options.lr, options.algorithms):
        if (seed, lr, name) in done or time.monotonic() - started > options.budget_s:
            continue
        rows.append(one_run(options, name, seed, lr))
        with file.open("a") as stream:
            stream.write(json.dumps(rows[-1]) + "\n")
        print({key: value for key, value in rows[-1].items() if key != "curve"}, flush=True)
    (options.out / "learning.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
