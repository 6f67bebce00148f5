"""What each process of test_sharding.py runs: a few steps of each layout, written down by rank 0.

It is a module of its own so that a fresh process imports nothing else.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlpost.learner.config import LoraConfig, OptimizerConfig
from tests.bilevel.helpers import corpus_of, job, learner_of, options

ADAMW = {"lr": 1e-2, "clip_grad": 1.0}
CASES: dict[str, dict[str, Any]] = {
    "adapters": {"layout": "adapters", "lora": LoraConfig(rank=4), "optimizer": OptimizerConfig(**ADAMW)},
    "two copies": {"layout": "two_copies", "optimizer": OptimizerConfig(**ADAMW)},
    "two copies with LISA": {
        "layout": "two_copies",
        "optimizer": OptimizerConfig(name="lisa", options={"layers": 1, "every": 1}, **ADAMW),
    },
}


def run(rank: int, world: int, model: Path, out: Path) -> None:
    """Run all cases as one of ``world`` ranks."""
    torch.set_num_threads(1)
    results = {}
    (out.parent / f"{out.name}-{rank}").mkdir()
    for number, (name, case) in enumerate(CASES.items()):
        config = {key: value for key, value in case.items() if key != "layout"}
        keys = options(out.parent / f"{out.name}-{rank}", layout=case["layout"])
        corpus = corpus_of(keys, model)
        learner = learner_of(keys, model, rank, world, rendezvous=f"file://{out}.{number}.meet", **config)
        steps = [job(step, len(corpus.train), len(corpus.validation)) for step in range(6)]
        rows = [learner.step(one) for one in steps[:4]]
        checkpoint = out.with_suffix(f".{number}")
        learner.save(checkpoint)
        moved = [learner.step(one) for one in steps[4:]]
        learner.load(checkpoint)
        again = [learner.step(one) for one in steps[4:]]
        # the weights of every rank, gathered: they must be the same
        own = torch.from_numpy(learner.weights.probs.copy())
        every = learner._ranks.sum(torch.stack([own * (place == rank) for place in range(world)])).numpy()
        results[name] = {"rows": rows, "resumed": again == moved, "spread": float(np.ptp(every, axis=0).max())}
        learner.close()
    if rank == 0:
        out.write_bytes(pickle.dumps(results))
