"""Which actor goes where: Ray resources and environment variables of the learner and the workers, from the recipe.

Pure arithmetic on the recipe, so that ``rlpost explain`` can print it and a run can be refused before anything
starts. Left out: several nodes (point ``cluster.address`` at a Ray cluster; Ray places the actors).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import Literal

from rlpost.recipe import Recipe, RecipeError
from rollout.vllm.config import CPU_HEAD_SIZES


@dataclass(frozen=True, slots=True)
class Placement:
    """Where everything runs.

    Attributes:
        device: "cpu" or "cuda".
        gpus_here: GPUs this machine has.
        learner_gpus: GPUs of each learner rank.
        worker_gpus: GPUs of each rollout worker.
        transport: how weights go from learner to workers: by CUDA IPC on one shared GPU, else the object store.
    """

    device: str
    gpus_here: int
    learner_gpus: float
    worker_gpus: float
    transport: Literal["object_store", "ipc"] = "object_store"


def count_gpus() -> int:
    """GPUs of this machine, without importing torch (which would take seconds in the driver)."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([part for part in visible.split(",") if part.strip() and part.strip() != "-1"])
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def place(recipe: Recipe, gpus_here: int | None = None, rollouts: bool = True) -> Placement:
    """Resolve devices and fractions.

    With one GPU, learner and workers share it; with enough of them, each rank and each worker gets its own. Without
    ``rollouts`` there are no workers.

    Raises:
        RecipeError: a GPU is asked for and none, or not enough, is there; or a built model that vLLM cannot run here.
    """
    gpus = count_gpus() if gpus_here is None else gpus_here
    learner, rollout = recipe.learner, recipe.rollout
    workers = rollout.workers if rollouts else 0
    device = ("cuda" if gpus else "cpu") if learner.device == "auto" else learner.device
    if device == "cpu":
        if rollouts:
            _refuse_head_size(recipe)
        return Placement("cpu", gpus, 0.0, 0.0)
    if gpus == 0 and recipe.cluster.address is None:
        raise RecipeError("learner.device: cuda asks for a GPU and this machine has none; set learner.device: cpu")
    worker_gpus = rollout.gpus if rollout.gpus is not None else _default_share(recipe, gpus, workers)
    learner_gpus = learner.gpus if learner.gpus is not None else min(1.0, _default_share(recipe, gpus, workers))
    asked = learner_gpus * learner.ranks + worker_gpus * workers
    if recipe.cluster.address is None and asked > gpus + 1e-6:
        raise RecipeError(
            f"the recipe asks for {asked:g} GPUs (learner.ranks {learner.ranks} x {learner_gpus:g} + rollout.workers "
            f"{workers} x {worker_gpus:g}) and this machine has {gpus}; lower learner.gpus, "
            "rollout.gpus or the numbers of actors"
        )
    shared = gpus == 1 and learner.ranks == 1
    ipc = recipe.sync.transport == "ipc" or (recipe.sync.transport == "auto" and shared)
    return Placement("cuda", gpus, learner_gpus, worker_gpus, "ipc" if ipc else "object_store")


def _refuse_head_size(recipe: Recipe) -> None:
    build = recipe.model.build
    if build is not None and recipe.diffusion is None and build.hidden // build.heads not in CPU_HEAD_SIZES:
        sizes = ", ".join(map(str, CPU_HEAD_SIZES))
        raise RecipeError(
            f"model.build: heads of size hidden / heads = {build.hidden // build.heads}; on a CPU vLLM has kernels for "
            f"{sizes} only. Change model.build.hidden or model.build.heads"
        )


def _default_share(recipe: Recipe, gpus: int, workers: int) -> float:
    """A whole GPU each where there are enough, else an equal fraction of one."""
    wanted = recipe.learner.ranks + workers * recipe.engine.tensor_parallel
    if wanted <= gpus:
        return float(recipe.engine.tensor_parallel)
    return round(1.0 / (recipe.learner.ranks + workers), 3)
