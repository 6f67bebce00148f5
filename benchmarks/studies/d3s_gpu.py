"""GRPO against GRPO + D3S on one GPU, all runs in one process on one engine: same seeds, same rollouts.

A warm start first, then pairs of runs (GRPO, then D3S with as many steps) while the time lasts. Countdown makes its own
tasks; GSM8K wants JSON Lines (also gzipped) with `question` and `answer`, training rows for the warm start and the
rollouts, test rows for accuracy (greedy) and pass@8.

    rlpost bench d3s_gpu countdown --model smollm2.gguf --out OUT --seconds 500
    rlpost bench d3s_gpu gsm8k --model smollm2.gguf --train train.jsonl.gz --test test.jsonl.gz --out OUT
    rlpost bench d3s_gpu countdown --device cpu --tiny --out OUT      # everything small, on a CPU

OUT/runs.jsonl has a line a run as soon as it is finished, OUT/tables.md and OUT/tables.json what they come to. Left
out: a search for the learning rate (d3s_cpu.py has one); both methods use --lr.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import signal
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

METHODS = {"GRPO": "null", "GRPO + D3S": "{name: d3s, samples: [10, 40], tokens: [20, 100]}"}
ENGINE_VARIABLES = {"VLLM_USE_FLASHINFER_SAMPLER": "0", "HF_HUB_OFFLINE": "1"}


def last_number(completion: str, task: Mapping[str, Any]) -> float:
    """GSM8K's reward: 1 where the number after the last #### is the reference's."""
    found, wanted = (re.findall(r"####\s*(-?[\d,]*\d)", text) for text in (completion, str(task["answer"])))
    return float(bool(found) and int(found[-1].replace(",", "")) == int(wanted[-1].replace(",", "")))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["countdown", "gsm8k"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", help="a folder or a .gguf file")
    parser.add_argument("--train", type=Path, help="gsm8k's training rows")
    parser.add_argument("--test", type=Path, help="gsm8k's test rows")
    parser.add_argument("--rows", type=int, default=7500, help="training rows used, at most")
    parser.add_argument("--test-rows", type=int, default=1319, help="test rows used, at most")
    parser.add_argument("--measured", type=int, default=400, help="held-out tasks played before and after, at most")
    parser.add_argument("--seconds", type=float, default=500, help="all in all; the tables are written before")
    parser.add_argument("--steps", type=int, default=60, help="of a run, at most")
    parser.add_argument("--seeds", type=int, default=4, help="pairs, at most")
    parser.add_argument("--tasks", type=int, help="tasks a step; default 32, 16 for gsm8k")
    parser.add_argument("--group", type=int, default=16, help="rollouts a task")
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--warm-steps", type=int, default=150, help="warm start, at most")
    parser.add_argument("--warm-lr", type=float, default=1e-4)
    parser.add_argument("--warm-accuracy", type=float, default=0.2, help="countdown's warm start ends here")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--eager", action="store_true", help="no CUDA graphs: starts 30 s sooner, samples more slowly")
    parser.add_argument("--tiny", action="store_true", help="a model built here, few short runs")
    return parser.parse_args()


def overrides(args: argparse.Namespace) -> list[str]:
    """The recipe's keys that do not differ between runs."""
    cuda = args.device == "cuda"
    found = [
        f"model={json.dumps({'path': str(Path(args.model).resolve()) if args.model else ''})}",
        f"steps={args.steps}",
        f"batch={{tasks: {args.tasks}, group_size: {args.group}}}",
        f"learner={{device: {args.device}, dtype: auto, max_tokens_per_pack: 32768, optimizer: {{lr: {args.lr}}}}}",
        f"engine={{slots: 512, gpu_memory_utilization: 0.2, enforce_eager: {str(args.eager).lower()}, "
        + ("kv_cache_gib: 8}" if cuda else "kv_cache_gib: 0.5, threads: 1}"),
        f"eval={{episodes: {256 if cuda else 16}, every: {max(1, args.steps // 15)}, greedy: false}}",
        # The probe's tokens are random, so unlikely that bf16 alone puts 0.05 to 0.1 nats between two scorers.
        f"sync={{gap_bound: {0.3 if cuda else 0.001}}}",
    ]
    if args.tiny:
        found[0] = "model={build: {hidden: 64, layers: 2, heads: 2, intermediate: 64}}"
        found.append("learner.threads=1")
    return found + (_countdown(args) if args.task == "countdown" else _gsm8k(args))


def _countdown(args: argparse.Namespace) -> list[str]:
    warm = f"examples: 19200, batch_size: 64, steps: {args.warm_steps}, lr: {args.warm_lr}"
    return [
        "env.options={numbers: 3, highest: 12, operators: '+-*', size: 4000, expert_share: 0.5}",
        f"warm_start={{data: env, {warm}, stop_accuracy: {args.warm_accuracy}}}",
        f"rollout={{max_new_tokens: 32, max_context: {2048 if args.tiny else 192}, max_concurrent: 1024}}",
    ]


def _gsm8k(args: argparse.Namespace) -> list[str]:
    """Write the data where the recipe and the warm start find them."""
    for split, source, most in (("train", args.train, args.rows), ("test", args.test, args.test_rows)):
        opened = gzip.open if source.suffix == ".gz" else open
        with opened(source, "rt") as lines:
            rows = [json.loads(line) for _, line in zip(range(most), lines, strict=False)]
        clean = [{"question": row["question"], "answer": re.sub(r"<<.*?>>", "", row["answer"])} for row in rows]
        (args.out / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in clean))
        if split == "train":
            turns = [
                [{"role": "user", "content": r["question"]}, {"role": "assistant", "content": r["answer"]}]
                for r in clean
            ]
            (args.out / "sft.jsonl").write_text("".join(json.dumps({"messages": turn}) + "\n" for turn in turns))
    place = args.out.resolve()
    data = {"train": str(place / "train.jsonl"), "eval": str(place / "test.jsonl")}
    warm = f"batch_size: {4 if args.tiny else 64}, steps: {args.warm_steps}, lr: {args.warm_lr}"
    options = {"prompt": "question", "reward": f"{Path(__file__).resolve()}:last_number"}
    return [
        f"env={json.dumps({'name': 'rlpost.envs.single_turn:SingleTurn', 'options': options})}",
        f"data={json.dumps(data)}",
        f"warm_start={{data: {place / 'sft.jsonl'}, {warm}}}",
        f"rollout={{max_new_tokens: {16 if args.tiny else 256}, max_context: {2048 if args.tiny else 640}, "
        "max_concurrent: 1024}",
    ]


class Benchmark:
    """All runs of one call."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.deadline = time.monotonic() + args.seconds
        self.common = overrides(args)
        self.lines: list[dict[str, Any]] = []
        self.before: dict[str, Any] = {}

    def load(self, method: str, seed: int, steps: int) -> Any:
        """The recipe of one run."""
        from rlpost.recipe import Recipe

        own = [f"algorithm={{name: grpo, minibatches: 2, select: {METHODS[method]}}}", f"seed={seed}", f"steps={steps}"]
        from rlpost.recipe_files import find_recipe

        return Recipe.load(find_recipe("d3s_countdown"), [*self.common, *own])

    def run(self) -> None:
        """Warm start, engine, pairs; tables at the end whatever happens."""
        from rich.console import Console

        from rlpost.benchmarks.one_engine import one_engine
        from rlpost.progress import Progress
        from rlpost.runfolder import RunFolder
        from rlpost.session import first_model

        first = self.load("GRPO", 0, self.args.steps)
        began = time.monotonic()
        model = first_model(first, RunFolder(self.args.out), Progress(0, Console(stderr=True)))
        print(f"warm start {time.monotonic() - began:.0f} s", flush=True)
        with one_engine(first, model) as engine:
            print(f"engine up after {time.monotonic() - began:.0f} s", flush=True)
            try:
                for seed in range(self.args.seeds):
                    if not self.pair(engine, model, seed):
                        break
            finally:
                self.write()

    def pair(self, engine: Any, model: Path, seed: int) -> bool:
        """Both methods on one seed; false where the time left is not enough for a pair like the last."""
        left, steps = self.deadline - time.monotonic(), self.args.steps
        last = sum(line["wall_s"] for line in self.lines[-2:])
        if left < 1.15 * last or left < 20:
            return False
        for place, method in enumerate(METHODS):
            share = 0.5 * left if place == 0 else self.deadline - time.monotonic()
            line = self.one(engine, model, method, seed, steps, share - 20)
            steps = line["evaluations"][-1][0]
            self.lines.append(line)
            with (self.args.out / "runs.jsonl").open("a") as out:
                out.write(json.dumps(line) + "\n")
            curve = " ".join(f"{success:.3f}" for _, success in line["evaluations"])
            print(f"{method} seed {seed}: {steps} steps in {line['wall_s']:.0f} s, success {curve}", flush=True)
            self.write()
        return True

    def one(self, engine: Any, model: Path, method: str, seed: int, steps: int, seconds: float) -> dict[str, Any]:
        """One run; its line."""
        from rlpost.benchmarks.comparison import columns
        from rlpost.tasks import load_tasks

        loaded = self.load(method, seed, steps)
        _, held_out = load_tasks(loaded)
        tasks, samples = held_out[: self.args.measured], 8 if self.args.task == "gsm8k" else 1

        def measure() -> dict[str, Any]:
            sampled = engine.play(tasks, samples, seed=1)
            greedy = engine.play(held_out[: 2 * self.args.measured], 1, seed=1, greedy=True)
            return {"sampled": sampled.astype(int).tolist(), "greedy": greedy[:, 0].astype(int).tolist()}

        def before() -> dict[str, Any]:
            self.before = self.before or measure()  # all runs start from the same weights
            return self.before

        started = time.monotonic()
        run = engine.run(loaded, model, seconds, before, measure)
        return {
            "method": method,
            "seed": seed,
            "wall_s": time.monotonic() - started,
            "evaluations": run.evaluations,
            "measured": run.measured,
            **columns(run.rows),
        }

    def write(self) -> None:
        """tables.md and tables.json from the lines so far."""
        tables = tables_of(self.lines)
        (self.args.out / "tables.md").write_text(tables)
        kept = [{key: value for key, value in line.items() if key != "measured"} for line in self.lines]
        settings = {key: str(value) for key, value in vars(self.args).items()}
        (self.args.out / "tables.json").write_text(json.dumps({"settings": settings, "runs": kept}, indent=1))


def tables_of(lines: Sequence[Mapping[str, Any]]) -> str:
    """A row a run, the paired differences, and what it took to reach GRPO's final success."""
    from rlpost.benchmarks.comparison import comparison, markdown

    titles = [
        "method", "seed", "steps", "n", "sampled before", "sampled after", "greedy before", "greedy after",
        "pass@8 before", "pass@8 after", "learner s a step", "step s", "packed tokens a step", "wall s",
    ]  # fmt: skip
    text = markdown(titles, [_run_row(line) for line in lines])
    found: dict[str, dict[int, Any]] = {method: {} for method in METHODS}
    for line in lines:
        found[line["method"]][line["seed"]] = line
    both = sorted(set.intersection(*(set(runs) for runs in found.values())))
    if not both:
        return text + "\n"
    text += "\n\n" + comparison(found) + "\n\n"
    base, other = found.values()
    for what in ("sampled", "greedy", "pass@8"):
        text += _difference(what, [base[seed] for seed in both], [other[seed] for seed in both])
    return text


def _values(line: Mapping[str, Any], what: str, place: int) -> list[float]:
    """(n,) of each task: share of its samples solved, greedy answer right, or any of its samples right."""
    measured = line["measured"][place]
    if what == "greedy":
        return [float(one) for one in measured["greedy"]]
    return [float(max(one) if what == "pass@8" else statistics.mean(one)) for one in measured["sampled"]]


def _interval(values: Sequence[float]) -> str:
    half = 1.96 * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.3f} ± {half:.3f}"


def _run_row(line: Mapping[str, Any]) -> list[str]:
    several = len(line["measured"][0]["sampled"][0]) > 1
    cells = [line["method"], str(line["seed"]), str(line["evaluations"][-1][0])]
    cells.append(f"{len(line['measured'][0]['sampled'])} / {len(line['measured'][0]['greedy'])}")
    for what in ("sampled", "greedy", "pass@8"):
        shown = several or what != "pass@8"
        cells += [_interval(_values(line, what, place)) if shown else "-" for place in (0, 1)]
    for name, form in (("time/learn_s", "{:.3f}"), ("time/step_s", "{:.2f}"), ("tokens/packed", "{:.0f}")):
        cells.append(form.format(statistics.median(line[name])))
    return [*cells, f"{line['wall_s']:.0f}"]


def _difference(what: str, base: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> str:
    """D3S minus GRPO over the same tasks, each task's mean over seeds, with a 95 % interval over tasks."""
    if what == "pass@8" and len(base[0]["measured"][0]["sampled"][0]) == 1:
        return ""
    columns = [
        [statistics.mean(own) for own in zip(*(_values(line, what, 1) for line in lines), strict=True)]
        for lines in (base, other)
    ]
    gains = [after - before for before, after in zip(*columns, strict=True)]
    mean, half = statistics.mean(gains), 1.96 * statistics.stdev(gains) / len(gains) ** 0.5
    inside = "inside" if abs(mean) <= half else "outside"
    return (
        f"- {what}, D3S minus GRPO after training: {mean:+.3f} ± {half:.3f} (n = {len(gains)} tasks): 0 is {inside}\n"
    )


def main() -> None:
    args = parsed()
    os.environ.update({name: os.environ.get(name, value) for name, value in ENGINE_VARIABLES.items()})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what is there is written on the way out
    args.tasks = args.tasks or (16 if args.task == "gsm8k" else 32)
    if args.tiny:
        args.steps, args.seeds, args.tasks, args.group, args.warm_steps = min(args.steps, 4), 1, 4, 4, 2
        args.rows, args.test_rows, args.measured = min(args.rows, 64), min(args.test_rows, 16), 16
    args.out.mkdir(parents=True, exist_ok=True)
    Benchmark(args).run()
    print((args.out / "tables.md").read_text())


if __name__ == "__main__":
    main()
