"""What each of the four processes of test_sharding.py runs: the same steps as a world of 1, 2, 3 and 4 ranks, each rank
that a world has no place for waiting for the next one; then every checkpoint is loaded by every world.

It is a module of its own so that a fresh process imports nothing else.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from rlpost.algorithms.base import Plan
from rlpost.learner.config import LoraConfig, OptimizerConfig
from rlpost.learner.export import layer_of
from rlpost.learner.learner import Learner
from rlpost.learner.sharding import whole
from rlpost.rollout.transport.object_store import as_array
from tests.learner.helpers import Clipped, batch, setup, weights_of

ADAMW = OptimizerConfig(lr=1e-2, weight_decay=0.1, clip_grad=1.0)
SGD = OptimizerConfig(name="torch.optim:SGD", lr=1.0, clip_grad=0.0)  # weights before minus after are the gradient
LISA = OptimizerConfig(name="lisa", lr=1e-2, options={"layers": 1, "every": 1})
EVERY = (1, 2, 3, 4)
PAIRS = (1, 2, 4)
CASES: dict[str, dict[str, Any]] = {
    "gradient": {"config": {"optimizer": SGD}, "worlds": EVERY},  # 32 rows are no multiple of 3, nor 7 sequences of 2
    "several updates of several packs": {
        "config": {"optimizer": ADAMW, "max_tokens_per_pack": 40, "gradient_checkpointing": True},
        "plan": Plan(2, 2),
        "worlds": EVERY,
    },
    "untied, off-policy": {"config": {"optimizer": ADAMW}, "untied": True, "lag": 1},
    "fewer sequences than ranks": {"config": {"optimizer": ADAMW}, "count": 1},
    "adapters": {"config": {"optimizer": ADAMW, "lora": LoraConfig(rank=4)}, "worlds": EVERY},
    "lisa": {"config": {"optimizer": LISA}, "worlds": EVERY},
    "apollo": {"config": {"optimizer": OptimizerConfig(name="apollo", lr=1e-2, options={"rank": 4})}},
    "bf16": {"config": {"optimizer": ADAMW, "dtype": "bf16"}, "worlds": PAIRS},
}
SAVED = ("several updates of several packs", "adapters", "lisa", "bf16")
"""Cases whose checkpoints of 1, 2 and 4 ranks are loaded by 1, 2 and 4 ranks."""


def run(rank: int, folders: tuple[Path, Path], out: Path) -> None:
    """Be rank ``rank`` of every world; ``folders`` are a tied and an untied model. Rank 0 writes what it saw."""
    torch.set_num_threads(1)
    results: dict[Any, Any] = {}
    states: dict[tuple[str, int], Any] = {}
    for world in EVERY[rank:]:
        for name, case in CASES.items():
            if world in case.get("worlds", (1, 2)):
                learner = _learner(rank, world, name, folders, out)
                results[name, world] = _steps(learner, case, world)
                checkpoint = _checkpoint(out, name, world)
                learner.save(checkpoint)
                states[name, world] = _everything(learner)
                moved = learner.learn(batch(4, seed=9, step=2)).metrics["loss"]
                learner.load(checkpoint)
                results[name, world]["resumed"] = learner.learn(batch(4, seed=9, step=2)).metrics["loss"] - moved
                results[name, world]["exported"] = _exported(learner, world)
                learner.close()
    for world in (one for one in PAIRS if one > rank):
        for name in SAVED:
            learner = _learner(rank, world, name, folders, out, "load")
            for saved_by in PAIRS:
                if (_checkpoint(out, name, saved_by)).exists():
                    learner.load(_checkpoint(out, name, saved_by))
                    loaded = _everything(learner)
                    if rank == 0:
                        results["equal", name, saved_by, world] = _equal(loaded, states[name, saved_by])
            learner.close()
    if rank == 0:
        out.write_bytes(pickle.dumps(results))


def _learner(rank: int, world: int, name: str, folders: tuple[Path, Path], out: Path, why: str = "run") -> Learner:
    case = CASES[name]
    base = setup(folders[1 if case.get("untied") else 0], ranks=world, **case["config"])
    meet = f"file://{out}.{list(CASES).index(name)}.{world}.{why}"
    ready = replace(base, rendezvous=meet, collective_timeout_s=240.0)
    return Learner(ready, rank, world, algorithm=Clipped(case.get("plan")))


def _checkpoint(out: Path, name: str, world: int) -> Path:
    return out.with_suffix(f".{list(CASES).index(name)}.of{world}")


def _steps(learner: Learner, case: dict[str, Any], world: int) -> dict[str, Any]:
    before = weights_of(learner)
    rows, old, layers = [], [], []
    for step in range(2):
        result = learner.learn(batch(case.get("count", 7), seed=step, step=step, lag=case.get("lag", 0)))
        rows.append({key: value for key, value in result.metrics.items() if not key.startswith("time/")})
        old += [values for values in result.old_logprobs if values is not None]
        drawn = learner._lisa.active if learner._lisa else None
        every: list[Any] = [drawn]
        if world > 1:
            every = [None] * world
            dist.all_gather_object(every, drawn)
        layers.append(every)
    after = weights_of(learner)
    return {
        "metrics": rows,
        "old": np.concatenate(old),
        "layers": layers,
        "change": {name: after[name] - before[name] for name in after},
        "scores": np.concatenate(learner.score([list(range(9)), [3], [7, 8]], 0.8)),
    }


def _exported(learner: Learner, world: int) -> tuple[list[int], bool]:
    """How many weights each rank publishes, no more than a layer at a time; and whether together they are the model."""
    parts = [[(part.names, part.payload) for part in learner.weight_parts(1)]]
    if world > 1:
        every: list[Any] = [None] * world
        dist.all_gather_object(every, parts[0])
        parts = every
        assert all(len({layer_of(name) for name in names}) == 1 for own in parts for names, _ in own)
    sent = {name: array for own in parts for part in own for name, array in zip(*part, strict=True)}
    policy = learner.policy
    given = policy.adapter_weights(policy.compute) if policy.has_adapters else policy.full_weights(policy.compute)
    kept = {name: as_array(weight) for name, weight in given}
    same = sent.keys() == kept.keys() and all(np.array_equal(sent[name], kept[name]) for name in kept)
    return [sum(len(names) for names, _ in own) for own in parts], same


def _everything(learner: Learner) -> dict[str, Any]:
    """All weights and all state of the optimizer, whole; a collective."""
    policy = learner.policy
    policy.settle()
    found: dict[str, Any] = {name: whole(weight).numpy() for name, weight in policy.model.named_parameters()}
    for name, weight in policy.model.named_parameters():
        for key, value in learner._optimizer.state.get(weight, {}).items():
            found[f"{name}/{key}"] = whole(value).numpy().copy() if isinstance(value, torch.Tensor) else value
    return {name: np.array(value) for name, value in found.items()}


def _equal(loaded: dict[str, Any], saved: dict[str, Any]) -> bool:
    return loaded.keys() == saved.keys() and all(np.array_equal(loaded[name], saved[name]) for name in saved)
