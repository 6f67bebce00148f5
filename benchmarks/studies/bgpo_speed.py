"""Where a step's time goes against n_t, and what the engine's caches and threshold give.

    rlpost bench bgpo_speed --out runs/bgpo

Step: rollouts, the pass for old log-probs (a step of two updates has one), and the updates, on a warm-started sudoku
model. Engine, on the same model: tokens a second and grids solved without cache, with the prefix and the dual cache,
and with the dual cache and a confidence threshold; and on random weights with long responses, where caches matter,
tokens a second only. Writes speed.json and speed.md. Left out: Ray and weight transfer (docs/performance.md).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from rlpost.algorithms.registry import build, locate
from rlpost.benchmarks.studies.bgpo_memory import SHAPES, model_folder
from rlpost.benchmarks.studies.bgpo_world import (
    LENGTH,
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
from rlpost.rollout.diffusion.decode import Row, decode
from rlpost.rollout.diffusion.model import BlockModel

WAYS: dict[str, dict[str, Any]] = {
    "no cache": {},
    "prefix": {"cache": "prefix"},
    "dual": {"cache": "dual"},
    "dual + threshold 0.9": {"cache": "dual", "threshold": 0.9},
}


def wait(options: argparse.Namespace) -> None:
    """For the GPU to finish."""
    if options.device == "cuda":
        torch.cuda.synchronize()


def step_rows(options: argparse.Namespace, folder: Path, world: World) -> list[dict[str, Any]]:
    """Median seconds of rollout, old pass and updates of a step of two updates, for each n_t."""
    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16
    engine, decoding = BlockModel.load(str(folder), dtype, options.device), DiffusionConfig(block=4, steps=2)
    rows = []
    for n_t in options.n_t:
        algorithm = build(locate("bgpo"), {"n_t": n_t, "minibatches": 2})
        model, seen = learner(options, folder, algorithm, 1e-6), []
        for step in range(options.repeats + 1):
            synchronise(engine, model)
            wait(options)
            started = time.perf_counter()
            groups = play(world, engine, decoding, options.tasks, 8, step, 0)
            wait(options)
            rollout = time.perf_counter() - started
            metrics = model.learn(batch(groups, algorithm, step, 10, 0)).metrics
            seen.append((rollout, metrics["time/old_s"], metrics["time/update_s"]))
        model.close()
        names = ("rollout_s", "old_s", "update_s")
        rows.append(
            {"n_t": n_t} | {k: statistics.median(v) for k, v in zip(names, zip(*seen[1:], strict=True), strict=True)}
        )
        print(rows[-1], flush=True)
    return rows


def engine_rows(options: argparse.Namespace, folder: Path, world: World) -> list[dict[str, Any]]:
    """Tokens a second of each way: on sudoku, with the share of grids solved, and on long responses."""
    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16
    rows = []
    with tempfile.TemporaryDirectory() as place:
        long = model_folder(options.shape, Path(place))
        for name, how in WAYS.items():
            engine = BlockModel.load(str(folder), dtype, options.device, how.get("cache", "none"))
            decoding = DiffusionConfig(block=4, after_eos="keep", **how)
            solved, _ = evaluate(world, engine, decoding, options.eval, 1.0)  # also warms up
            engine.passes = 0
            started = time.perf_counter()
            evaluate(world, engine, decoding, options.eval, 1.0)
            wait(options)
            row = {"way": name, "solved": solved, "tokens_s": options.eval * LENGTH / (time.perf_counter() - started)}
            row["passes"] = engine.passes
            other = BlockModel.load(str(long), dtype, options.device, how.get("cache", "none"))
            if "threshold" not in how:  # random weights are never sure
                row["long_tokens_s"] = long_responses(
                    options, other, DiffusionConfig(block=options.block, after_eos="keep", **how)
                )
            rows.append(row)
            print(row, flush=True)
    return rows


def long_responses(options: argparse.Namespace, model: BlockModel, decoding: DiffusionConfig) -> float:
    """Tokens a second with prompts of 128 tokens and two tokens unmasked a step."""
    decoding = decoding.model_copy(update={"steps": max(1, decoding.block // 2)})
    rows = [Row(list(range(3, 131)), 1.0, seed) for seed in range(options.rows)]
    decode(model, rows, decoding.block, decoding, [])
    wait(options)
    started = time.perf_counter()
    decode(model, rows, options.length, decoding, [])
    wait(options)
    return options.rows * options.length / (time.perf_counter() - started)


def table(steps: list[dict[str, Any]], ways: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """Both tables."""
    lines = ["| n_t | rollout, s | old log-probs, s | two updates, s |", "|---|---|---|---|"]
    lines += [f"| {r['n_t']} | {r['rollout_s']:.2f} | {r['old_s']:.2f} | {r['update_s']:.2f} |" for r in steps]
    lines += [
        "",
        f"| engine | tokens/s | passes | solved | tokens/s, response {options.length} |",
        "|---|---|---|---|---|",
    ]
    for r in ways:
        long = f"{r['long_tokens_s']:,.0f}" if "long_tokens_s" in r else "not measured"
        lines.append(f"| {r['way']} | {r['tokens_s']:,.0f} | {r['passes']} | {100 * r['solved']:.1f} % | {long} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--n-t", type=int, nargs="+", default=[1, 4, 16, 32])
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--eval", type=int, default=256)
    parser.add_argument("--shape", choices=list(SHAPES), default="tiny", help="of the model with long responses")
    parser.add_argument("--rows", type=int, default=8, help="long responses at once")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--block", type=int, default=32)
    options = parse(parser)
    if options.tiny:
        options.warm_steps, options.n_t, options.repeats, options.eval, options.length = 3, [1, 2], 1, 8, 64
    folder = warmed(options)
    world = World.of(folder, options.empty, 0)
    steps, ways = step_rows(options, folder, world), engine_rows(options, folder, world)
    (options.out / "speed.json").write_text(json.dumps({"steps": steps, "engine": ways}, indent=1))
    (options.out / "speed.md").write_text(table(steps, ways, options))
    print(table(steps, ways, options))


if __name__ == "__main__":
    main()
