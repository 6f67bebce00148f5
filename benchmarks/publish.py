"""(e) Publishing weights: how long it takes, how many GiB a second, and how long sampling pauses.

    rlpost bench publish --out DIR                        # three minutes on an H100, both transports
    rlpost bench publish --out DIR --device cpu --tiny

A publication is the learner's part (gather, cast, hand over) and the engine's (load, drop its cache); ``pause_ms`` is
the engine's from taking the update to the next token, with nothing else running (the token is the probe's),
``busy_pause_ms`` the same with a full batch running, whose cache must be computed anew. The weights do not change
between publications, so ``gap`` must not either; then a step changes them. Left out: NCCL (several GPUs).
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from rlpost.benchmarks.harness import Results, gpu_environment, median, parser
from rlpost.benchmarks.step import GROUP, RECIPE, model_in_child, share_of_worker, write_prompts


def measure(transport: str, rounds: int, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Publish ``rounds`` times in a session of its own."""
    from rlpost.progress import Progress
    from rlpost.recipe import Recipe
    from rlpost.runfolder import RunFolder
    from rlpost.session import open_session

    recipe, run = folder / "recipe.yaml", folder / f"run-{transport}"
    run.mkdir()
    values = vars(args) | {"model": folder / "model", "prompts": folder / "prompts.jsonl", "group": GROUP}
    values |= {
        "here": Path(__file__).resolve().parent,
        "tasks": args.completions // GROUP,
        "sleep": "false",
        "run_steps": 10,
    }
    values |= share_of_worker(args)
    recipe.write_text(RECIPE.format(**values, context=args.prompt + args.tokens + 8))
    loaded = Recipe.load(recipe, [f"sync.transport={transport}", "learner.optimizer.lr=1e-3", "sync.gap_bound=100"])
    with Progress(total_steps=0) as progress, open_session(loaded, RunFolder(run), progress) as session:
        rows = [publication(session, version) for version in range(1, rounds + 1)]
        kept = rows[1:]
        row: dict[str, Any] = {"gib": rows[0]["gib"], "publications": len(kept)}
        row |= {key: median([one[key] for one in kept]) for key in ("learner_ms", "engine_ms", "pause_ms", "total_ms")}
        row |= {
            "gib_per_s": row["gib"] / row["total_ms"] * 1e3,
            "gap_first": rows[0]["gap"],
            "gap_last": rows[-1]["gap"],
        }
        row |= {"gap_max": max(one["gap"] for one in rows)}
        row |= changed_weights(session)
        row |= {"busy_pause_ms": median([busy_pause(session, rounds + 1 + place) for place in range(3)])}
    return row


def publication(session: Any, version: int) -> dict[str, float]:
    """One publication to an engine that has nothing else to do."""
    import ray

    from rlpost.rollout.weight_update import WeightUpdate
    from rlpost.workers import RolloutActor

    learner, pool = session.learner, session.pool
    began = time.perf_counter()
    parts = learner.publish(version)
    published = time.perf_counter()
    pool.call_all(RolloutActor.update, *parts)
    loaded = time.perf_counter()
    gap = gap_now(session, version)
    status = pool.call(0, RolloutActor.status).engine
    record = WeightUpdate.join(ray.get(parts))
    sizes = {"float32": 4, "bfloat16": 2}
    size = sum(sizes[dtype] * math.prod(shape) for dtype, shape in zip(record.dtypes, record.shapes, strict=True))
    return {
        "gib": size / 2**30,
        "learner_ms": 1e3 * (published - began),
        "engine_ms": 1e3 * status["update_s"],
        "total_ms": 1e3 * (loaded - began),
        "pause_ms": 1e3 * status["pause_s"],
        "gap": gap,
    }


def changed_weights(session: Any) -> dict[str, float]:
    """The gap right before and right after the publication of a step that moves every weight by 1e-3: were an update to
    leave old weights in place, the second would be as large as the first."""
    import dataclasses

    from rlpost.controller import Controller
    from rlpost.report import MetricsWriter, RolloutWriter

    publisher, before = session.publisher, []
    publish = publisher.publish

    def spied(version: int) -> Any:
        before.append(gap_now(session, version))
        return publish(version)

    publisher.publish = spied
    loaded = dataclasses.replace(session.loaded, recipe=session.recipe.model_copy(update={"steps": 1}))
    path = session.folder.path
    writers = MetricsWriter(path), RolloutWriter(path, lambda ids: [str(one) for one in ids], limit=0)
    try:
        Controller(dataclasses.replace(session, loaded=loaded), *writers).step(0)
    finally:
        publisher.publish = publish
    return {"gap_before_update": before[-1], "gap_after_update": gap_now(session, 1)}


def gap_now(session: Any, seed: int) -> float:
    """Mean |learner - engine| over random rows, whatever weights each has."""
    import numpy as np

    from rlpost.workers import RolloutActor

    rows = np.random.default_rng(0).integers(0, session.learner.vocabulary, (4, 16)).tolist()
    [answer, *_] = session.pool.call_all(RolloutActor.probe, rows, 1.0, seed)
    pairs = zip(session.learner.score(rows, 1.0), answer.fixed_logprobs, strict=True)
    return float(np.mean([np.abs(ours - theirs).mean() for ours, theirs in pairs]))


def busy_pause(session: Any, version: int) -> float:
    """Milliseconds without a token, with a full batch half sampled."""
    from rlpost.rollout.specs import EpisodeSpec
    from rlpost.sampling import derive_seed
    from rlpost.workers import RolloutActor

    recipe, pool = session.recipe, session.pool
    specs = [
        EpisodeSpec(session.train[place], version * 1000 + place, index, derive_seed(version, place, index))
        for place in range(recipe.batch.tasks)
        for index in range(recipe.batch.group_size)
    ]
    start = pool.call(0, RolloutActor.status).engine["tokens"]
    flights = pool.submit(specs)
    wanted = len(specs) * recipe.rollout.max_new_tokens // 2
    while pool.call(0, RolloutActor.status).engine["tokens"] - start < wanted:
        time.sleep(0.005)
    pool.call_all(RolloutActor.update, *session.learner.publish(version))
    while any(flight.summary is None for flight in flights):
        pool.poll(flights, 1.0)
    return 1e3 * float(pool.call(0, RolloutActor.status).engine["pause_s"])


def main() -> None:
    """Both transports, one session each."""
    made = parser(__doc__)
    made.add_argument("--transports", nargs="+", default=None)
    made.add_argument("--rounds", type=int, default=51, help="publications by ipc; a fifth of it by object store")
    made.add_argument("--shape", default="0.5b")
    args = made.parse_args()
    on_gpu = args.device == "cuda"
    sizes = (256, 128, 190) if on_gpu and not args.tiny else (16, 24, 24)
    args.completions, args.tokens, args.prompt = sizes
    args.dtype, args.kv_cache_gib = ("bf16", 4.0) if on_gpu else ("fp32", 0.25)
    args.threads, args.pack, args.checkpointing, args.workers = 2, 8192, "false", 1
    if args.tiny:
        args.rounds, args.shape = 10, "tiny"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if on_gpu:
        gpu_environment()
    results = Results("publish", args.out, {"model": args.shape})
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model_in_child(args.shape, folder / "model", args.device)
        write_prompts(folder / "prompts.jsonl", max(64, args.completions), args.prompt)
        for transport in args.transports or (["ipc", "object_store"] if on_gpu else ["object_store"]):
            rounds = args.rounds if transport == "ipc" else max(4, args.rounds // 5)
            results.attempt(transport, lambda t=transport, n=rounds: measure(t, n, folder, args))


if __name__ == "__main__":
    main()
