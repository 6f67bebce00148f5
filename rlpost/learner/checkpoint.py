"""Saving and restoring everything a learner is: weights, optimizer state, random state, steps done.

A checkpoint is a Hugging Face folder plus ``trainer_state.pt``; tensors in it are whole, so it can be loaded by another
number of ranks. That file is written last and moved into place, so a folder that has it is complete. Left out: the
controller's own state.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from rlpost.learner.errors import ModelError
from rlpost.learner.export import save_folder
from rlpost.learner.model import read_weights
from rlpost.learner.policy import PolicyModel
from rlpost.learner.sharding import Ranks, copy_whole, like, whole

STATE = "trainer_state.pt"
_FORMAT = 1


def save_checkpoint(
    folder: Path,
    policy: PolicyModel,
    optimizer: torch.optim.Optimizer,
    ranks: Ranks,
    steps_done: int,
    base: Path,
    beside: Mapping[str, bytes],
) -> None:
    """Write a checkpoint; a collective, rank 0 writes.

    Args:
        folder: where; created.
        policy, optimizer, ranks: what is saved.
        steps_done: learning steps taken so far.
        base: the folder whose weights adapters go back on top of.
        beside: the model folder's files other than weights.
    """
    save_folder(policy, ranks, beside, folder)
    state: dict[str, Any] = {
        "format": _FORMAT,
        "steps_done": steps_done,
        "base": str(base.resolve()),
        "adapters": {name: whole(weight).cpu() for name, weight in policy.trainable()} if policy.has_adapters else {},
        "optimizer": optimizer_state(policy, optimizer),
        "groups": [{key: value for key, value in g.items() if key != "params"} for g in optimizer.param_groups],
        "rng": torch.get_rng_state(),
        "rng_cuda": torch.cuda.get_rng_state() if policy.device.type == "cuda" else None,
    }
    if ranks.rank == 0:
        partial = folder / f"{STATE}.partial"
        torch.save(state, partial)
        os.replace(partial, folder / STATE)
    ranks.barrier()


def load_checkpoint(folder: Path, policy: PolicyModel, optimizer: torch.optim.Optimizer) -> tuple[int, Path]:
    """Restore what ``save_checkpoint`` wrote; every rank reads it.

    Returns:
        Learning steps taken, and the folder that adapters (if any) go on top of.

    Raises:
        ModelError: no complete checkpoint there, or one of another model.
    """
    state = _read_state(folder)
    if bool(state["adapters"]) != policy.has_adapters:
        raise ModelError(
            f"the checkpoint '{folder}' was saved {'with' if state['adapters'] else 'without'} learner.lora"
        )
    source = Path(state["base"]) if policy.has_adapters else folder
    _restore_weights(policy, source)
    for name, weight in policy.trainable():
        if policy.has_adapters:
            copy_whole(weight, state["adapters"][name])
    restore_optimizer(policy, optimizer, state)
    torch.set_rng_state(state["rng"])
    if state["rng_cuda"] is not None and policy.device.type == "cuda":
        torch.cuda.set_rng_state(state["rng_cuda"])
    return state["steps_done"], Path(state["base"])


def _read_state(folder: Path) -> dict[str, Any]:
    if not (folder / STATE).is_file():
        raise ModelError(f"'{folder}' has no {STATE}, so it is not a complete checkpoint; resume from an earlier one")
    state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    if state["format"] != _FORMAT:
        raise ModelError(f"'{folder / STATE}' has format {state['format']}, and this release reads {_FORMAT}")
    return state


def _restore_weights(policy: PolicyModel, source: Path) -> None:
    policy.settle()
    saved = dict(read_weights(source, policy.model).named_parameters())
    for name, weight in policy.model.named_parameters():
        if ".lora_" in name:
            continue
        plain = name.replace(".base_layer.", ".")
        if plain not in saved or saved[plain].shape != weight.shape:
            raise ModelError(
                f"the weights in '{source}' are of another model: '{plain}' is missing or of another shape"
            )
        copy_whole(weight, saved[plain].detach())


def optimizer_state(policy: PolicyModel, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    """State by name of weight, of weights that have any; tensors whole and on the CPU."""
    policy.settle()
    return {
        name: {
            key: whole(value).cpu() if isinstance(value, Tensor) else value
            for key, value in optimizer.state[weight].items()
        }
        for name, weight in policy.model.named_parameters()
        if weight in optimizer.state
    }


def restore_optimizer(policy: PolicyModel, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """The inverse of ``optimizer_state``; ``state`` holds it under "optimizer", and the param groups' settings."""
    policy.settle()
    optimizer.zero_grad(set_to_none=True)
    optimizer.state.clear()
    for name, weight in policy.model.named_parameters():
        if own := state["optimizer"].get(name):
            optimizer.state[weight] = {key: _place(value, weight) for key, value in own.items()}
    for group, saved in zip(optimizer.param_groups, state["groups"], strict=True):
        group.update(saved)


def _place(value: Any, weight: nn.Parameter) -> Any:
    """State of a sharded weight is sharded like it; a step count stays where torch's optimizers keep it."""
    if not isinstance(value, Tensor):
        return value
    if isinstance(weight, DTensor) and value.ndim:
        return _sharded(value, weight)
    return value.to(weight.device) if value.ndim or weight.device.type == "cuda" else value.clone()


def _sharded(value: Tensor, weight: DTensor) -> Tensor:
    """Whole state, sharded by its first dimension as the weight is. Slicing by hand takes quantised state too."""
    if value.shape == weight.shape and type(value) is Tensor:
        return like(value, weight)
    mesh = weight.device_mesh
    rows = value.shape[0] // mesh.size()
    local = value[mesh.get_local_rank() * rows : (mesh.get_local_rank() + 1) * rows].to(weight.device)
    return DTensor.from_local(local, mesh, [Shard(0)], run_check=False)
