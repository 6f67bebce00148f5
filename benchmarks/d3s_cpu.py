"""GRPO, PODS, D1S, D2S and D3S with the same rollouts on a CPU: recipes/d3s_countdown.yaml, one process, one engine.

Each method's learning rate comes from the same grid on seeds that the comparison does not use; then all methods run on
the comparison's seeds, each seed with a warm-started model of its own. A finished run is a line of OUT/runs.jsonl, so
started again it goes on where it was; the tables are made from that file.

    python benchmarks/d3s_cpu.py --out /tmp/d3s --seconds 280      # again and again until it says "complete"

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

os.environ.setdefault("OMP_NUM_THREADS", "1")

from one_engine import OneEngine, one_engine
from rich.console import Console

from rlpost.progress import Progress
from rlpost.recipe import LoadedRecipe, Recipe
from rlpost.runfolder import RunFolder
from rlpost.session import first_model

ROOT = Path(__file__).parents[1]
METHODS = {
    "GRPO": "null",
    "PODS": "{name: d3s, samples: 25, tokens: 100, scope: group, renormalize: true}",
    "D1S group": "{name: d3s, samples: 25, tokens: 100, scope: group}",
    "D1S batch": "{name: d3s, samples: 25, tokens: 100}",
    "D2S": "{name: d3s, samples: 25, tokens: 50}",
    "D3S": "{name: d3s, samples: [15, 35], tokens: [20, 100]}",
}
RATES = (5e-4, 1e-3, 2e-3)
GRID_SEEDS = (100, 101)
SEEDS = (0, 1, 2, 3, 4)
SMOOTH = 3
"""Evaluations whose mean decides whether GRPO's final success was reached."""


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
    common = ["eval.every=4", "engine.threads=1", "learner.threads=1", f"seed={seed}"]
    return Recipe.load(ROOT / "recipes/d3s_countdown.yaml", [*common, *overrides])


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
    columns = {
        name: [row[name] for row in run.rows]
        for name in (
            "success/mean", "time/learn_s", "time/step_s", "time/rollout_s", "time/sync_s", "tokens/packed",
            "tokens/learned", "tokens/rollout",
            "select/zero_variance_groups", "select/variance_before", "select/variance_after", "selection_gain",
            "time/saved_s", "entropy", "grad_norm",
        )
    }  # fmt: skip
    return {"key": job.key, "evaluations": run.evaluations, **columns}


def final(line: dict[str, Any]) -> float:
    """Mean success of the evaluations in the last tenth of the run."""
    steps = line["evaluations"][-1][0]
    return statistics.mean(success for step, success in line["evaluations"] if step > 0.9 * steps)


def reached(line: dict[str, Any], goal: float) -> int | None:
    """Steps done at the first evaluation whose mean with the two before it is at or above ``goal``."""
    found = line["evaluations"]
    for end in range(SMOOTH, len(found) + 1):
        if statistics.mean(success for _, success in found[end - SMOOTH : end]) >= goal:
            return found[end - 1][0]
    return None


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


def spread(values: list[float], form: str = "{:.3f}") -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{form.format(statistics.mean(values))} ± {form.format(deviation)}"


def table(lines: dict[str, dict[str, Any]], seeds: list[int]) -> str:
    """The comparison over the seeds that all methods have finished."""
    rates = {method: best_rate(lines, method) for method in METHODS}
    found = {
        method: {s: lines[key] for s in seeds if rate and (key := Job(method, rate, s).key) in lines}
        for method, rate in rates.items()
    }
    common = sorted(set.intersection(*(set(runs) for runs in found.values())))
    if not common:
        return "no seed is finished for all methods yet"
    titles = (
        "method", "lr", "success before", "final success", "learned tokens, whole run (k)", "learner s, whole run",
        "reached", "steps to reach", "learned tokens to reach (k)", "of them non-zero loss (k)", "learner s to reach",
        "wall s to reach", "rollout tokens to reach (k)", "learner s / GRPO", "learned tokens / GRPO",
    )  # fmt: skip
    rows = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    base: dict[int, tuple[float, float]] = {}
    for method, runs in found.items():
        ends = {seed: reached(runs[seed], final(found["GRPO"][seed])) for seed in common}
        there = [seed for seed in common if ends[seed] is not None]

        def upto(name: str, seed: int, runs: Any = runs, ends: Any = ends) -> float:
            return sum(runs[seed][name][: ends[seed]])

        if method == "GRPO":
            base = {seed: (upto("time/learn_s", seed), upto("tokens/packed", seed)) for seed in there}
        pairs = [seed for seed in there if seed in base]
        cells = [
            method,
            f"{rates[method]:g}",
            spread([runs[seed]["evaluations"][0][1] for seed in common]),
            spread([final(runs[seed]) for seed in common]),
            spread([sum(runs[seed]["tokens/packed"]) / 1e3 for seed in common], "{:.0f}"),
            spread([sum(runs[seed]["time/learn_s"]) for seed in common], "{:.2f}"),
            f"{len(there)} of {len(common)}",
        ]
        if pairs:
            cells += [
                spread([float(ends[seed] or 0) for seed in there], "{:.0f}"),
                spread([upto("tokens/packed", seed) / 1e3 for seed in there], "{:.0f}"),
                spread([upto("tokens/learned", seed) / 1e3 for seed in there], "{:.0f}"),
                spread([upto("time/learn_s", seed) for seed in there], "{:.2f}"),
                spread([upto("time/step_s", seed) for seed in there], "{:.1f}"),
                spread([upto("tokens/rollout", seed) / 1e3 for seed in there], "{:.0f}"),
                spread([upto("time/learn_s", seed) / base[seed][0] for seed in pairs], "{:.2f}"),
                spread([upto("tokens/packed", seed) / base[seed][1] for seed in pairs], "{:.2f}"),
            ]
        rows.append("| " + " | ".join(cells + ["-"] * (len(titles) - len(cells))) + " |")
    return f"seeds {common}\n\n" + "\n".join(rows)


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
