"""Which actor goes where: GPUs of each node, who sits on them, and how weights travel, from the recipe.

Pure arithmetic on the recipe and the number of GPUs of each node, so that ``rlpost explain`` can print it and a run can
be refused before anything starts; ``seats.reserve`` then asks Ray for exactly this. Left out: which of a node's GPUs
(Ray picks), and moving actors while a run goes on.
"""

from __future__ import annotations

import functools
import math
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from rlpost.recipe import Recipe, RecipeError
from rlpost.rollout.transport.base import Transport
from rlpost.rollout.transport.ends import Bundle
from rlpost.rollout.transport.registry import TransportError, choose, find
from rlpost.rollout.vllm.config import CPU_HEAD_SIZES
from rlpost.rollout.weight_update import DEFAULT_TRANSPORT


@dataclass(frozen=True, slots=True)
class Placement:
    """Where everything runs.

    Attributes:
        device: "cpu" or "cuda".
        nodes: GPUs of each node.
        learner_gpus: GPUs of each learner rank.
        worker_gpus: GPUs of each rollout worker.
        transport: how weights go from learner to workers.
        bundles: who is where; empty on a CPU, where Ray places the actors.
    """

    device: str
    nodes: tuple[int, ...]
    learner_gpus: float = 0.0
    worker_gpus: float = 0.0
    transport: Transport = field(default_factory=partial(find, DEFAULT_TRANSPORT))
    bundles: tuple[Bundle, ...] = ()


def count_gpus() -> int:
    """GPUs of this machine, without importing torch (which would take seconds in the driver)."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([part for part in visible.split(",") if part.strip() and part.strip() != "-1"])
    return _installed_gpus()


@functools.cache  # a placement is worked out before anything starts, and again in the cluster
def _installed_gpus() -> int:
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def place(recipe: Recipe, nodes: Sequence[int] | None = None, rollouts: bool = True) -> Placement:
    """Resolve devices, shares and places. Without ``rollouts`` there are no workers.

    Where there are GPUs enough, each rank and each worker gets its own; else, or where ``learner.gpus`` or
    ``rollout.gpus`` say so, they share: each rank is on a GPU that no other rank is on, and workers on those with the
    most room.

    Args:
        recipe: the recipe.
        nodes: GPUs of each node; absent: this machine's. Of a cluster (``cluster.address``) that nobody has asked yet:
            one node with as many as would be wanted.
        rollouts: whether there are workers.

    Raises:
        RecipeError: GPUs are asked for that are not there, a tensor-parallel engine that cannot be, weights that cannot
            travel as asked, or a built model that vLLM cannot run here.
    """
    learner, rollout = recipe.learner, recipe.rollout
    workers = rollout.workers if rollouts else 0
    size = recipe.engine.tensor_parallel
    wanted = learner.ranks + workers * size
    if nodes is None:
        nodes = (count_gpus(),) if recipe.cluster.address is None else (wanted,)
    total = sum(nodes)
    device = ("cuda" if total else "cpu") if learner.device == "auto" else learner.device
    if rollouts and size > 1:
        _refuse_heads(recipe, size)
    if device == "cpu":
        if rollouts:
            _refuse_head_size(recipe)
        return Placement("cpu", tuple(nodes), transport=_transport(recipe, workers, ()))
    if total == 0:
        raise RecipeError("learner.device: cuda asks for a GPU and this machine has none; set learner.device: cpu")
    share = 1.0 if wanted <= total else _equal_share(learner.ranks, workers, size, total)
    learner_gpus = share if learner.gpus is None else learner.gpus
    worker_gpus = (share * size if share == 1 else share) if rollout.gpus is None else rollout.gpus
    if (worker_gpus > 1 and worker_gpus != size) or (size > 1 and worker_gpus != size):
        raise RecipeError(
            f"rollout.gpus: {worker_gpus:g} GPUs for a worker whose engine is spread over {size} "
            f"(engine.tensor_parallel); leave rollout.gpus out"
        )
    bundles = _Board(nodes).seat(recipe, workers, learner_gpus, worker_gpus)
    return Placement(device, tuple(nodes), learner_gpus, worker_gpus, _transport(recipe, workers, bundles), bundles)


def _equal_share(ranks: int, workers: int, size: int, total: int) -> float:
    """What each actor gets where GPUs are shared; rounded down, so that a GPU's shares never exceed it."""
    if size > 1 or ranks > total:
        return 1.0  # nothing to share: too many are asked for
    return math.floor(1000 / math.ceil((ranks + workers) / total)) / 1000


class _Board:
    """GPUs and how much of each is free, while actors are being placed."""

    def __init__(self, nodes: Sequence[int]) -> None:
        self._free = [[1.0] * gpus for gpus in nodes]
        self._bundles: dict[tuple[int, int], Bundle] = {}  # by node and first GPU

    def seat(self, recipe: Recipe, workers: int, learner_gpus: float, worker_gpus: float) -> tuple[Bundle, ...]:
        """Engines over whole GPUs from the last node backwards, ranks from the first forwards, then what shares."""
        ranks = recipe.learner.ranks
        asked = learner_gpus * ranks + worker_gpus * workers
        refusal = RecipeError(
            f"the recipe asks for {asked:g} GPUs (learner.ranks {ranks} x {learner_gpus:g} + rollout.workers "
            f"{workers} x {worker_gpus:g}), a GPU of its own for each rank, and there are {sum(map(len, self._free))} "
            f"({', '.join(f'{len(node)} on node {number}' for number, node in enumerate(self._free))}); lower "
            "learner.ranks, rollout.workers, engine.tensor_parallel, learner.gpus or rollout.gpus"
        )
        if worker_gpus >= 1:
            for worker in reversed(range(workers)):
                if not self._take_whole(worker, int(worker_gpus)):
                    raise refusal
        places = [(node, gpu) for node, gpus in enumerate(self._free) for gpu, room in enumerate(gpus) if room == 1.0]
        if len(places) < ranks:
            raise refusal
        for rank, (node, gpu) in zip(range(ranks), places, strict=False):
            self._free[node][gpu] -= learner_gpus
            self._bundles[node, gpu] = Bundle(node, 1, (rank,))
        for worker in range(workers if worker_gpus < 1 else 0):
            if not self._take_part(worker, worker_gpus):
                raise refusal
        return tuple(self._bundles[place] for place in sorted(self._bundles))

    def _take_whole(self, worker: int, gpus: int) -> bool:
        for node in reversed(range(len(self._free))):
            free = [gpu for gpu, room in enumerate(self._free[node]) if room == 1.0]
            if len(free) >= gpus:
                for gpu in free[-gpus:]:
                    self._free[node][gpu] = 0.0
                self._bundles[node, free[-gpus]] = Bundle(node, gpus, (), (worker,))
                return True
        return False

    def _take_part(self, worker: int, share: float) -> bool:
        rooms = [(room, -node, -gpu) for node, gpus in enumerate(self._free) for gpu, room in enumerate(gpus)]
        room, node, gpu = max(rooms)
        node, gpu = -node, -gpu
        if room < share - 1e-9:
            return False
        self._free[node][gpu] -= share
        before = self._bundles.get((node, gpu), Bundle(node, 1))
        self._bundles[node, gpu] = Bundle(node, 1, before.ranks, (*before.workers, worker))
        return True


def _transport(recipe: Recipe, workers: int, bundles: Sequence[Bundle]) -> Transport:
    try:
        return choose(recipe.sync.transport if workers else DEFAULT_TRANSPORT, bundles)
    except TransportError as error:
        raise RecipeError(f"sync.transport: {error}") from None


def _refuse_heads(recipe: Recipe, size: int) -> None:
    """vLLM spreads attention heads over the GPUs of an engine; it would say so itself a minute later."""
    heads = _heads(recipe)
    if heads is None:
        return
    queries, shared = heads
    if queries % size or (shared % size and size % shared):
        raise RecipeError(
            f"engine.tensor_parallel: {size} GPUs cannot share the model's {queries} attention heads ({shared} "
            "key-value heads) evenly; use a divisor of both"
        )


def _heads(recipe: Recipe) -> tuple[int, int] | None:
    """Query heads and key-value heads; None where only loading the model would tell."""
    if (build := recipe.model.build) is not None:
        return build.heads, build.kv_heads or build.heads
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(recipe.model.path), trust_remote_code=recipe.model.trust_remote_code)
    except (OSError, ValueError):
        return None
    config = config.get_text_config()
    queries = getattr(config, "num_attention_heads", None)
    return None if queries is None else (queries, getattr(config, "num_key_value_heads", None) or queries)


def _refuse_head_size(recipe: Recipe) -> None:
    build = recipe.model.build
    if build is not None and recipe.diffusion is None and build.hidden // build.heads not in CPU_HEAD_SIZES:
        sizes = ", ".join(map(str, CPU_HEAD_SIZES))
        raise RecipeError(
            f"model.build: heads of size hidden / heads = {build.hidden // build.heads}; on a CPU vLLM has kernels for "
            f"{sizes} only. Change model.build.hidden or model.build.heads"
        )
