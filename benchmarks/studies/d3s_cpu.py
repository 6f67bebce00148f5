"""GRPO, PODS, D1S, D2S and D3S with the same rollouts on a CPU: recipes/d3s_countdown.yaml, one process, one engine.

Each method's learning rate comes from the same grid on seeds that the comparison does not use; then all methods run on
the comparison's seeds, each seed with a warm-started model of its own. A finished run is a line of OUT/runs.jsonl, so
started again it goes on where it was; the tables are made from that file.

    rlpost bench d3s_cpu --out /tmp/d3s --seconds 280      # again and again until it says "complete"

Left out: GPUs (d3s_gpu.py).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlpost.recipe_files import find_recipe

os.environ.setdefault("OMP_NUM_THREADS", "1")

from rich.console import Console

from rlpost.benchmarks.comparison import columns, comparison
from rlpost.benchmarks.one_engine import OneEngine, one_engine
from rlpost.progress import Progress
from rlpost.recipe import LoadedRecipe, Recipe
from rlpost.runfolder import RunFolder
from rlpost.session import first_model

METHODS = {
    "GRPO": "null",
    "PODS": "{name: d3s, samples: 25, tokens: 100, scope: group, renormalize: true}",
    "D1S group": "{name: d3s, samples: 25, tokens: 100, scope: group}",
    "D1S batch": "{name: d3s, samples: 25, tokens: 100}",
    "D2S": "{name: d3s, samples: 25, tokens: 50}",
    "D3S": "{name: d3s, samples: [10, 40], tokens: [20, 100]}",
}
RATES = (1e-4, 2e-4, 4e-4)
GRID_SEEDS = (100, 101)
SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True, slots=True)
class Job:
    """One run: of the grid, or of the comparison."""

    method: str
    rate: float
    seed: int

    @property
    def key(self) -> str:
        """Its name in runs.jsonl."""
        return f"{self.method} {self.rate:g} {self.seed}"


def load(seed: int, overrides: list[str]) -> LoadedRecipe:
    """The recipe with an evaluation every few steps and one thread for each of learner and engine."""
    common = ["eval.every=2", "eval.episodes=192", "engine.threads=1", "learner.threads=1", f"seed={seed}"]
    return Recipe.load(find_recipe("d3s_countdown"), [*common, *overrides])


def warm_model(seed: int, out: Path, overrides: list[str]) -> Path:
    """The warm-started model of a seed; made once."""
    folder = RunFolder(out / f"seed-{seed}")
    if not (folder.warm_model / "model.safetensors").exists():
        first_model(load(seed, overrides), folder, Progress(0, Console(stderr=True)))
    return folder.warm_model


def play(engine: OneEngine, job: Job, out: Path, overrides: list[str]) -> dict[str, Any]:
    """Run a job; its line of runs.jsonl."""
    rule = f"algorithm.select={METHODS[job.method]}"
    loaded = load(job.seed, [*overrides, rule, f"learner.optimizer.lr={job.rate}"])
    run = engine.run(loaded, warm_model(job.seed, out, overrides))
    return {"key": job.key, "evaluations": run.evaluations, **columns(run.rows)}


def best_rate(lines: dict[str, dict[str, Any]], method: str) -> float | None:
    """The rate with the highest mean of all evaluations on the grid's seeds; None until all of them ran."""
    means = {}
    for rate in RATES:
        done = [lines.get(Job(method, rate, seed).key) for seed in GRID_SEEDS]
        if None in done:
            return None
        means[rate] = statistics.mean(success for line in done if line for _, success in line["evaluations"])
    return max(means, key=lambda rate: means[rate])


def jobs(lines: dict[str, dict[str, Any]], methods: list[str], seeds: list[int]) -> Iterator[Job]:
    """All jobs in order; those of the comparison follow once their method's rate is known."""
    for seed in GRID_SEEDS:
        yield from (Job(method, rate, seed) for method in methods for rate in RATES)
    for seed in seeds:
        for method in methods:
            rate = best_rate(lines, method)
            assert rate is not None
            yield Job(method, rate, seed)


def table(lines: dict[str, dict[str, Any]], seeds: list[int]) -> str:
    """The comparison over the seeds that all methods have finished."""
    rates = {method: best_rate(lines, method) for method in METHODS}
    found = {
        f"{method}, lr {rate:g}" if rate else method: {
            seed: lines[key] for seed in seeds if rate and (key := Job(method, rate, seed).key) in lines
        }
        for method, rate in rates.items()
    }
    found = {name: runs for name, runs in found.items() if runs}
    return "\n\n".join(comparison(found, share) for share in (1.0, 0.95))


def grid_table(lines: dict[str, dict[str, Any]]) -> str:
    """Mean of all evaluations, by method and rate."""
    rows = ["| method | " + " | ".join(f"{rate:g}" for rate in RATES) + " |", "|---|" + "---|" * len(RATES)]
    for method in METHODS:
        cells = []
        for rate in RATES:
            done = [lines[key] for seed in GRID_SEEDS if (key := Job(method, rate, seed).key) in lines]
            cells.append(f"{statistics.mean(s for line in done for _, s in line['evaluations']):.3f}" if done else "-")
        rows.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=280, help="start no further run after this many")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--only", nargs=3, metavar=("METHOD", "LR", "SEED"), help="run this one, e.g. GRPO 1e-3 100")
    parser.add_argument("--table", action="store_true", help="only print the tables")
    parser.add_argument("--overrides", nargs="*", default=[], help="recipe keys for every run, dotted.key=value")
    args = parser.parse_args()
    began = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    record = args.out / "runs.jsonl"
    lines = {}
    if record.exists():
        lines = {line["key"]: line for line in map(json.loads, record.read_text().splitlines())}
    if not args.table:
        first = warm_model(GRID_SEEDS[0], args.out, args.overrides)
        with one_engine(load(GRID_SEEDS[0], args.overrides), first) as engine:
            only = [Job(args.only[0], float(args.only[1]), int(args.only[2]))] if args.only else None
            for job in only or jobs(lines, args.methods, args.seeds):
                if job.key in lines:
                    continue
                if time.monotonic() - began > args.seconds:
                    break
                start = time.monotonic()
                line = play(engine, job, args.out, args.overrides)
                lines[job.key] = line
                with record.open("a") as out:
                    out.write(json.dumps(line) + "\n")
                curve = " ".join(f"{success:.2f}" for _, success in line["evaluations"])
                print(f"{job.key}: {time.monotonic() - start:.0f} s, success {curve}", flush=True)
            else:
                print("complete")
    tables = f"{grid_table(lines)}\n\n{table(lines, args.seeds)}\n"
    (args.out / "tables.md").write_text(tables)
    print(tables)


if __name__ == "__main__":
    main()
