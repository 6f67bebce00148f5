"""What agents_cpu.py and agents_gpu.py share: many methods and seeds with one engine, results as JSON lines.

The loop, the rollout worker, the publication and the evaluation are rlpost's own; only the learner lives in this very
process, where a new one costs a second. A run that is in the results already is not done again, so that the experiment
can be cut into pieces. Left out: anything that a single ``rlpost train`` shows.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlpost.benchmarks.one_engine import local_run
from rlpost.cluster import ray_cluster
from rlpost.controller import Controller
from rlpost.placement import place
from rlpost.progress import Progress
from rlpost.recipe import LoadedRecipe, Recipe
from rlpost.runfolder import RunFolder
from rlpost.session import start_workers
from rlpost.workers import WorkerPool

T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t, two-sided 95 %, by degrees of freedom."""
WarmStart = Callable[[LoadedRecipe, RunFolder, Progress], Path]


class Bench:
    """One engine, and runs on it.

    Args:
        recipe: of all runs.
        overrides: of all runs too.
        out: folder of the results and of one folder a run.
        warm: makes the one model that all runs start from.
    """

    def __init__(self, recipe: Path, overrides: list[str], out: Path, warm: WarmStart) -> None:
        self._warm = warm
        self._recipe, self._overrides, self.out = recipe, overrides, out
        self.results = out / "results.jsonl"
        self._pool: WorkerPool | None = None

    def done(self) -> list[dict[str, Any]]:
        """All runs so far."""
        return [json.loads(line) for line in self.results.read_text().splitlines()] if self.results.exists() else []

    def load(self, seed: int, overrides: Sequence[str]) -> LoadedRecipe:
        """The recipe of one run."""
        return Recipe.load(self._recipe, [*self._overrides, f"seed={seed}", *overrides])

    def run(self, method: str, seed: int, overrides: Sequence[str]) -> dict[str, Any]:
        """Train once from the warm-started model, and note what came of it."""
        loaded = self.load(seed, overrides)
        began = time.monotonic()
        with Progress(total_steps=loaded.recipe.steps) as progress:
            model = self._model(loaded, progress)
            folder = RunFolder(self.out / f"{method}-{seed}")
            folder.path.mkdir(parents=True, exist_ok=True)
            pool = self._workers(loaded, model, progress)
            with local_run(loaded, model, folder.path, pool, progress) as controller:
                found = self._train(controller, loaded)
        rows = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
        found |= {"method": method, "seed": seed, "seconds": time.monotonic() - began, "overrides": list(overrides)}
        found["curve"] = [row["success/mean"] for row in rows]
        found["tokens"] = sum(row["tokens/rollout"] for row in rows)
        found["prefix_cache_hit_rate"] = statistics.mean(row.get("engine/prefix_cache_hit_rate", 0.0) for row in rows)
        found["step_s"] = statistics.median(row["time/step_s"] for row in rows)
        with self.results.open("a") as file:
            file.write(json.dumps(found) + "\n")
        return found

    def _train(self, controller: Controller, loaded: LoadedRecipe) -> dict[str, Any]:
        found: dict[str, Any] = {"before": self._evaluate(controller)}
        print(f"{loaded.recipe.seed}: TGC before {found['before']['tgc']:.3f}", flush=True)
        controller.train()
        found["after"] = self._evaluate(controller)
        if loaded.recipe.eval.greedy:
            found["after_greedy"] = self._evaluate(controller, greedy=True)
        return found

    @staticmethod
    def _evaluate(controller: Controller, greedy: bool = False) -> dict[str, float]:
        result = controller.evaluate(greedy)
        return {"success": result.success, "reward": result.reward, **result.details}

    def _model(self, loaded: LoadedRecipe, progress: Progress) -> Path:
        """The warm-started model, made once, by whichever process comes first."""
        folder = RunFolder(self.out / "start")
        folder.path.mkdir(parents=True, exist_ok=True)
        ready = folder.path / "ready"
        with (folder.path / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not ready.exists():
                ready.write_text(str(self._warm(loaded, folder, progress)))
        return Path(ready.read_text())

    def _workers(self, loaded: LoadedRecipe, model: Path, progress: Progress) -> WorkerPool:
        if self._pool is None:
            self._pool = start_workers(loaded, model, place(loaded.recipe), progress)
            self._pool.wait_ready()
        return self._pool

    def close(self) -> None:
        """End the engine."""
        if self._pool is not None:
            self._pool.close()


def plain_warm_start(loaded: LoadedRecipe, folder: RunFolder, progress: Progress) -> Path:
    """The warm start in a plain loop: of a tiny model on one core, at half the time a step of the product's trainer,
    because batches are of conversations about as long. Same conversations, loss and end; it takes more steps."""
    import torch
    from transformers import AutoModelForCausalLM

    from rlpost.learner.source import materialise
    from rlpost.rollout.chat import load_format
    from rlpost.warm_start import WarmStartJob
    from rlpost.warm_start_data import IGNORED, load
    from rlpost.warm_start_trainer import accuracy

    recipe, config = loaded.recipe, loaded.recipe.warm_start
    assert config is not None
    plain = materialise(recipe.model, folder.model, recipe.seed)
    chat = load_format(plain, recipe.rollout.chat, recipe.rollout.observation_tokens, recipe.rollout.separator)
    job = WarmStartJob(config, str(plain), "", None, loaded.env, loaded.env_options, recipe.rollout, False, recipe.seed)
    train, checks = load(job, chat)
    model: Any = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr)
    torch.manual_seed(recipe.seed)
    batches: list[Any] = []
    size, began = config.batch_size, time.monotonic()
    for step in range(config.steps):
        optimizer.param_groups[0]["lr"] = config.lr * min(
            1.0, 20 * (step + 1) / config.steps, 2 - 2 * step / config.steps
        )
        if not batches:  # eight at a time, each of conversations about as long: half of the work would be padding
            drawn = sorted((train[i] for i in torch.randint(len(train), (8 * size,))), key=lambda c: len(c.input_ids))
            batches = [drawn[i * size : (i + 1) * size] for i in torch.randperm(8).tolist()]
        some = batches.pop()
        longest = len(some[-1].input_ids)
        ids = torch.tensor([c.input_ids + [0] * (longest - len(c.input_ids)) for c in some])
        labels = torch.tensor([c.labels + [IGNORED] * (longest - len(c.labels)) for c in some])
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            reached = accuracy(model, checks)
            print(f"warm start {step + 1}: loss {loss.item():.3f}, accuracy {reached:.2f}", end=" ", flush=True)
            print(f"({time.monotonic() - began:.0f} s)", flush=True)
            if config.stop_accuracy and reached >= config.stop_accuracy:
                break
    shutil.copytree(plain, folder.warm_model, dirs_exist_ok=True)
    model.save_pretrained(folder.warm_model)
    return folder.warm_model


def run_all(
    recipe: Path, overrides: list[str], methods: dict[str, list[str]], args: argparse.Namespace, warm: WarmStart
) -> None:
    """Every method with every seed, seed by seed, until all is done or no further run fits into the time."""
    seeds, out, minutes = range(args.seeds), args.out, args.minutes
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * minutes
    bench = Bench(recipe, overrides, out, warm)
    done = {(row["method"], row["seed"]) for row in bench.done()}
    left = [(method, seed) for seed in seeds for method in methods if (method, seed) not in done]
    longest = 0.0
    with ray_cluster(None) as ray_is_up:
        ray_is_up()
        try:
            for method, seed in left:
                if time.monotonic() + longest > end:
                    print("time is up; start again to go on", flush=True)
                    break
                began = time.monotonic()
                found = bench.run(method, seed, methods[method])
                longest = max(longest, time.monotonic() - began)
                print(method, seed, f"{found['before']['tgc']:.3f} -> {found['after']['tgc']:.3f}", flush=True)
                (out / "table.md").write_text(summarise(bench.done(), list(methods)))
        finally:
            bench.close()
    print(summarise(bench.done(), list(methods)))


def summarise(rows: Sequence[dict[str, Any]], methods: Sequence[str]) -> str:
    """A Markdown table: means over seeds with 95 % t-intervals, and the first method's lead, seed by seed."""
    by_method: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        by_method[row["method"]][row["seed"]] = row
    first = by_method.get(methods[0], {})
    greedy = any("after_greedy" in row for row in rows)
    lines = [
        f"| method | n | TGC before | TGC after | SGC after |{' TGC after, greedy |' * greedy} gain in TGC "
        f"| lead of {methods[0]} | step s |",
        "|---|---|---|---|---|---|---|---|" + "---|" * greedy,
    ]
    for method in methods:
        runs = by_method.get(method, {})
        if runs:
            after = {seed: run["after"]["tgc"] for seed, run in runs.items()}
            shared = sorted(first.keys() & runs.keys())
            cells = [
                interval([run["before"]["tgc"] for run in runs.values()]),
                interval(list(after.values())),
                interval([run["after"]["sgc"] for run in runs.values()]),
                *([interval([run["after_greedy"]["tgc"] for run in runs.values()])] if greedy else []),
                interval([after[seed] - run["before"]["tgc"] for seed, run in runs.items()]),
                interval([first[seed]["after"]["tgc"] - after[seed] for seed in shared]) if runs is not first else "",
                f"{statistics.median(run['step_s'] for run in runs.values()):.2f}",
            ]
            lines.append(f"| {method} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def interval(values: Sequence[float]) -> str:
    """Mean and half-width of its 95 % interval, in percent."""
    if not values:
        return ""
    mean = 100 * statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.1f}"
    half = T_975.get(len(values) - 1, 1.96) * 100 * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.1f} ± {half:.1f}"


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Those both scripts have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="results.jsonl, table.md, a folder a run")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=5.0, help="start no run that would end later than this")
    parser.add_argument("--methods", nargs="*", help="only these")
    parser.add_argument("--tiny", action="store_true", help="two steps of almost nothing, to see that it runs")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further overrides of the recipe")
    return parser


def with_openmp() -> None:
    """Start this script again with the libraries that the learner's process wants; see rlpost/learner/group.py."""
    from rlpost.rollout.vllm.config import intel_openmp

    library = intel_openmp()
    if library and os.environ.get("LD_PRELOAD") != str(library):
        variables = {"LD_PRELOAD": str(library), "KMP_BLOCKTIME": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **variables})
