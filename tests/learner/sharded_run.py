"""What each process of test_sharding.py runs: two learning steps in several configurations, written down by rank 0.

It is a module of its own so that a fresh process imports nothing else.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from algorithms.base import Plan
from rlpost.learner.config import LoraConfig, OptimizerConfig
from rlpost.learner.learner import Learner
from tests.learner.helpers import Clipped, batch, setup, weights_of

ADAMW = OptimizerConfig(lr=1e-2, weight_decay=0.1, clip_grad=1.0)
SGD = OptimizerConfig(name="torch.optim:SGD", lr=1.0, clip_grad=0.0)  # weights before minus after are the gradient
CASES: dict[str, dict[str, Any]] = {
    "gradient": {"config": {"optimizer": SGD}},
    "several updates of several packs": {
        "config": {"optimizer": ADAMW, "max_tokens_per_pack": 40, "gradient_checkpointing": True},
        "plan": Plan(2, 2),
    },
    "untied, off-policy": {"config": {"optimizer": ADAMW}, "untied": True, "lag": 1},
    "fewer sequences than ranks": {"config": {"optimizer": ADAMW}, "count": 1},
    "adapters": {"config": {"optimizer": ADAMW, "lora": LoraConfig(rank=4)}},
    "lisa": {"config": {"optimizer": OptimizerConfig(name="lisa", lr=1e-2, options={"layers": 1, "every": 1})}},
    "apollo": {"config": {"optimizer": OptimizerConfig(name="apollo", lr=1e-2, options={"rank": 4})}},
    "bf16": {"config": {"optimizer": ADAMW, "dtype": "bf16"}},
}


def run(rank: int, world: int, folders: tuple[Path, Path], out: Path) -> None:
    """Run all cases as one of ``world`` ranks; ``folders`` are a tied and an untied model."""
    torch.set_num_threads(1)
    results = {}
    for number, (name, case) in enumerate(CASES.items()):
        base = setup(folders[1 if case.get("untied") else 0], ranks=world, **case["config"])
        ready = replace(base, rendezvous=f"file://{out}.{number}.meet", collective_timeout_s=60.0)
        learner = Learner(ready, rank, world, algorithm=Clipped(case.get("plan")))
        results[name] = _steps(learner, case)
        checkpoint = out.with_suffix(f".{number}")
        learner.save(checkpoint)
        moved = learner.learn(batch(4, seed=9, step=2)).metrics["loss"]
        learner.load(checkpoint)
        results[name]["resumed"] = learner.learn(batch(4, seed=9, step=2)).metrics["loss"] - moved
        results[name]["exported"] = len(learner.weights(1).payload)
        learner.close()
    if rank == 0:
        out.write_bytes(pickle.dumps(results))


def _steps(learner: Learner, case: dict[str, Any]) -> dict[str, Any]:
    before = weights_of(learner)
    rows, old = [], []
    for step in range(2):
        result = learner.learn(batch(case.get("count", 7), seed=step, step=step, lag=case.get("lag", 0)))
        rows.append({key: value for key, value in result.metrics.items() if not key.startswith("time/")})
        old += [values for values in result.old_logprobs if values is not None]
    after = weights_of(learner)
    return {
        "metrics": rows,
        "old": np.concatenate(old),
        "change": {name: after[name] - before[name] for name in after},
        "scores": np.concatenate(learner.score([list(range(9)), [3], [7, 8]], 0.8)),
    }
