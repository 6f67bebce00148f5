"""1, 2, 4 and 8 GPUs: the learner over them, rollout workers on them, and whole steps with both apart.

    rlpost bench scaling --out DIR                                  # all GPUs of this machine; 25 minutes on eight
    rlpost bench scaling --out DIR --parts learner:1.5b:1 learner:1.5b:4 rollouts:0.5b:4 step:1.5b:8
    rlpost bench scaling --out DIR --device cpu --tiny              # 1 and 2 processes

A part is KIND:SHAPE:GPUS, a process of its own; its rows are medians after a warm-up.

    learner    GPUS ranks hold one model (FSDP2) and learn from rollouts of 190 + 128..256 tokens
    rollouts   GPUS workers play a step's episodes, nothing else running
    step       half of the GPUS hold the learner and half a worker each (of one GPU, both share it): lags 0 and 1, then
               publications alone, by NCCL where there are several

Strong scaling keeps the rollouts of a step (``--completions``), weak scaling multiplies them by GPUS. ``of_linear`` is
tokens/s by those of one GPU, divided by GPUS. Layers are compiled nowhere, so that all numbers of ranks do the same.
Left out: several nodes (start Ray there and give ``--address``).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rlpost.benchmarks.harness import Results, call, gpu_environment, median, parser
from rlpost.benchmarks.step import GROUP, RECIPE, model_in_child, share_of_worker, write_prompts

KINDS = ("learner", "rollouts", "step")
PUBLICATIONS = 11


def recipe_of(args: argparse.Namespace, folder: Path, shape: str, count: int, *overrides: str) -> Any:
    """The recipe of a part, ``count`` rollouts a step."""
    from rlpost.recipe import Recipe

    values = vars(args) | {"model": folder / shape, "prompts": folder / "prompts.jsonl", "group": GROUP}
    values |= {"here": Path(__file__).resolve().parent, "tasks": count // GROUP, "run_steps": 10, "sleep": "false"}
    values |= share_of_worker(args) | {"context": args.prompt + args.tokens + 8}
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(**values))
    address = [f"cluster.address={args.address}"] if args.address else []
    return Recipe.load(path, [*overrides, *address])


def amounts(args: argparse.Namespace, size: int) -> dict[str, int]:
    """Rollouts a step by kind of scaling; both are one where there is one GPU."""
    return {"strong": args.completions} | ({"weak": args.completions * size} if size > 1 else {})


def learner_part(args: argparse.Namespace, folder: Path, shape: str, size: int) -> list[dict[str, Any]]:
    """Seconds of learning steps on random rollouts."""
    import ray

    from rlpost.benchmarks.learner import batch_of
    from rlpost.cluster import ray_cluster
    from rlpost.seats import place_in_cluster, reserve
    from rlpost.session import start_learner

    loaded = recipe_of(args, folder, shape, args.completions, f"learner.ranks={size}")
    rows = []
    with ray_cluster(args.address) as ray_is_up:
        ray_is_up()
        placement = place_in_cluster(loaded.recipe, rollouts=False)
        with reserve(placement) as seats:
            learner = start_learner(loaded, folder / shape, placement, seats)
            try:
                learner.wait_ready()
                for scaling, count in amounts(args, size).items():
                    lengths = [
                        (args.prompt, args.prompt + args.tokens // 2 * (1 + index % 2)) for index in range(count)
                    ]
                    seconds = []
                    for step in range(args.warm_up + args.steps):
                        batch = batch_of(lengths, learner.vocabulary, step)
                        refs, batch.trajectories = [ray.put(one) for one in batch.trajectories], []
                        began = time.perf_counter()
                        result = learner.learn(refs, batch)
                        seconds.append(time.perf_counter() - began)
                    took, tokens = median(seconds[args.warm_up :]), sum(length for _, length in lengths)
                    row = {"scaling": scaling, "rollouts": count, "learn_s": took, "tokens_per_s": tokens / took}
                    rows.append(row | {"peak_gib_rank_0": result.metrics.get("memory/learner_peak_gib")})
            finally:
                learner.close()
    return rows


def rollouts_part(args: argparse.Namespace, folder: Path, shape: str, size: int) -> list[dict[str, Any]]:
    """Sampled tokens a second of workers that have the machine to themselves."""
    from rlpost.cluster import ray_cluster
    from rlpost.placement import Bundle, Placement
    from rlpost.progress import Progress
    from rlpost.seats import gpu_nodes, reserve
    from rlpost.session import start_workers
    from rlpost.tasks import load_tasks

    loaded = recipe_of(args, folder, shape, args.completions * size, f"rollout.workers={size}")
    train, _ = load_tasks(loaded)
    rows = []
    with ray_cluster(args.address) as ray_is_up, Progress(total_steps=0) as progress:
        ray_is_up()
        placement = Placement("cpu", (0,))
        if args.device == "cuda":
            free = [node for node, (_, gpus) in enumerate(gpu_nodes()) for _ in range(gpus)]
            bundles = tuple(Bundle(free[worker], 1, (), (worker,)) for worker in range(size))
            placement = Placement("cuda", (len(free),), worker_gpus=1.0, bundles=bundles)
        with reserve(placement) as seats:
            pool = start_workers(loaded, folder / shape, placement, progress, seats)
            try:
                pool.wait_ready()
                for scaling, count in amounts(args, size).items():
                    rates = [play(pool, train, count, number) for number in range(args.warm_up + args.steps)]
                    rate = median(rates[args.warm_up :])
                    rows.append({"scaling": scaling, "rollouts": count, "tokens_per_s": rate})
            finally:
                pool.close()
    return rows


def play(pool: Any, train: Any, count: int, number: int) -> float:
    """The episodes of one step; sampled tokens a second."""
    from rlpost.rollout.specs import EpisodeSpec
    from rlpost.sampling import derive_seed

    places = [(place, index) for place in range(count // GROUP) for index in range(GROUP)]
    began = time.perf_counter()
    flights = pool.submit(
        [EpisodeSpec(train[place], place, index, derive_seed(number, place, index)) for place, index in places]
    )
    while any(flight.summary is None for flight in flights):
        pool.poll(flights, 1.0)
    return sum(flight.summary.policy_tokens for flight in flights) / (time.perf_counter() - began)


def step_part(args: argparse.Namespace, folder: Path, shape: str, size: int) -> list[dict[str, Any]]:
    """Whole steps at lags 0 and 1, and publications."""
    from rlpost.benchmarks.step_rlpost import phase
    from rlpost.progress import Progress
    from rlpost.runfolder import RunFolder
    from rlpost.session import open_session

    half = max(1, size // 2)
    transport = args.transport if args.device == "cuda" and size > 1 else "auto"
    apart = (f"learner.ranks={half}", f"rollout.workers={half}", f"sync.transport={transport}")
    loaded = recipe_of(args, folder, shape, args.completions * half, *apart)
    run = RunFolder(folder / "run")
    run.path.mkdir()
    rows: list[dict[str, Any]] = []
    log = folder / "steps.jsonl"
    with log.open("w") as out, Progress(total_steps=0) as progress, open_session(loaded, run, progress) as session:
        done = 0
        for lag in (0, 1):
            done = phase(session, lag, done, args.warm_up + lag + args.steps, out)
            found = [json.loads(line) for line in log.read_text().splitlines()]
            kept = [row for row in found if row["lag_asked"] == lag][args.warm_up + lag :]
            row = {"scaling": "weak", "rollouts": args.completions * half, "lag": lag, "ranks": half, "workers": half}
            row["step_s"] = median([one["ended"] - one["began"] for one in kept])
            for key in ("time/rollout_s", "time/learn_s", "time/sync_s"):
                row[key] = median([one[key] for one in kept])
            rows.append(row | {"gap/logprob_abs": max(one["gap/logprob_abs"] for one in kept)})
        rows.append(publications(session, done, {"scaling": "publication", "ranks": half, "workers": half}))
    return rows


def publications(session: Any, version: int, row: dict[str, Any]) -> dict[str, Any]:
    """Seconds of publications to workers that have nothing else to do, their answers to the probe included."""
    import ray

    from rlpost.rollout.weight_update import WeightUpdate

    publisher, seconds = session.publisher, []
    for number in range(version + 1, version + 1 + PUBLICATIONS):
        publication = publisher.publish(number)
        seconds.append(publication.seconds)
        gap = publication.verified()
    update = WeightUpdate.join(ray.get(session.learner.publish(version)))
    sizes = {"float32": 4, "bfloat16": 2}
    size = sum(sizes[dtype] * math.prod(shape) for dtype, shape in zip(update.dtypes, update.shapes, strict=True))
    row |= {"publish_s": median(seconds[1:]), "publish_min_s": min(seconds), "publish_max_s": max(seconds[1:])}
    return row | {"gib": size / 2**30, "gap/logprob_abs": gap.logprob_abs}


def child(args: argparse.Namespace, rows: Path) -> None:
    """One part, in this process; its rows as JSON."""
    kind, shape, size = args.part.split(":")
    measure = {"learner": learner_part, "rollouts": rollouts_part, "step": step_part}[kind]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model_in_child(shape, folder / shape, args.device)
        write_prompts(folder / "prompts.jsonl", max(64, args.completions * int(size) // GROUP), args.prompt)
        rows.write_text(json.dumps(measure(args, folder, shape, int(size))))


def of_linear(results: Results) -> None:
    """What of linear scaling each row reached, where one GPU was measured."""
    alone = {
        (row["kind"], row["shape"]): row["tokens_per_s"]
        for row in results.rows
        if row["gpus"] == 1 and "tokens_per_s" in row
    }
    for row in results.rows:
        if "tokens_per_s" in row and (row["kind"], row["shape"]) in alone:
            row["of_linear"] = row["tokens_per_s"] / alone[row["kind"], row["shape"]] / row["gpus"]
    results.write()


def main() -> None:
    """Part by part, each a row or more; whatever is cut short leaves what it had."""
    made = parser(__doc__)
    made.add_argument("--parts", nargs="+", help="KIND:SHAPE:GPUS; default: all that this machine can")
    made.add_argument("--address", help="of a running Ray cluster")
    made.add_argument("--transport", default="nccl", choices=("nccl", "object_store"), help="of steps on several GPUs")
    made.add_argument("--seconds", type=float, default=3600, help="begin no part after so many")
    made.add_argument("--limit", type=float, default=240, help="seconds a part may take")
    numbers = {"completions": 256, "tokens": 256, "prompt": 190, "warm-up": 2, "steps": 5, "pack": 8192, "threads": 2}
    for name, default in numbers.items():
        made.add_argument(f"--{name}", type=int, default=default)
    made.add_argument("--part", help=argparse.SUPPRESS)
    args = made.parse_args()
    on_gpu = args.device == "cuda"
    args.dtype, args.kv_cache_gib, args.checkpointing = ("bf16", 4.0, "false") if on_gpu else ("fp32", 0.25, "false")
    args.workers = 1  # each part makes more of the kind, as it has GPUs
    if args.tiny:
        args.completions, args.tokens, args.prompt, args.steps, args.warm_up, args.threads = 16, 8, 24, 2, 1, 1
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if on_gpu:
        gpu_environment()
    if args.part:
        child(args, args.out)
        return
    results = Results("scaling", args.out, {"completions": args.completions, "tokens": args.tokens})
    began = time.monotonic()
    for part in args.parts or default_parts(args):
        if time.monotonic() - began > args.seconds:
            results.add(part=part, failed="not begun: the time was over")
            continue
        kind, shape, size = part.split(":")
        log, rows = (
            args.out / f"scaling-{part.replace(':', '-')}.log",
            args.out / f"scaling-{part.replace(':', '-')}.json",
        )
        rows.unlink(missing_ok=True)
        options = [word for word in sys.argv[1:] if word != "--parts"]
        options = [word for word in options if word not in (args.parts or [])]
        options[options.index("--out") + 1] = str(rows)
        ended_well, why = call(
            [sys.executable, "-P", "-m", "rlpost.benchmarks.scaling", *options, "--part", part], args.limit, log
        )
        name = {"part": part, "kind": kind, "shape": shape, "gpus": int(size)}
        for row in json.loads(rows.read_text()) if ended_well else [{"failed": why}]:
            results.add(**name, **row)
        of_linear(results)


def default_parts(args: argparse.Namespace) -> list[str]:
    """Every kind and shape at 1, 2, 4, 8 GPUs as far as there are; the numbers the goals are about come first."""
    from rlpost.placement import count_gpus

    sizes = [1, 2] if args.device == "cpu" else [size for size in (4, 1, 8, 2) if size <= count_gpus()]
    shapes = ["tiny"] if args.tiny or args.device == "cpu" else ["1.5b", "0.5b"]
    return [f"{kind}:{shape}:{size}" for size in sizes for shape in shapes for kind in KINDS]


if __name__ == "__main__":
    main()
