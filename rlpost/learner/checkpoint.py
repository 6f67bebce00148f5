"""Saving and restoring everything a learner is: weights, optimizer state, random state, steps done.

A checkpoint is a Hugging Face folder, or a PEFT one where only adapters are trained, plus ``optimizer/``, which
torch.distributed.checkpoint writes: each rank its own shards, read back by any number of ranks; and
``trainer_state.pt``, small, written last and moved into place, so a folder that has it is complete. Left out: the
controller's own state.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rlpost.learner.adapter_files import base_of
from rlpost.learner.config import LoraConfig
from rlpost.learner.errors import ModelError
from rlpost.learner.export import save_folder
from rlpost.learner.model import read_weights
from rlpost.learner.policy import PolicyModel
from rlpost.learner.sharding import Ranks, copy_whole

STATE = "trainer_state.pt"
_SHARDS = "optimizer"
_OWN = "optimizer/rank-{}.pt"
_FORMAT = 2


@dataclass(frozen=True, slots=True)
class Part:
    """An optimizer, and the weights that belong to it.

    Attributes:
        named: every weight that the optimizer may hold state of, by name.
        optimizer: theirs.
        weights: those of them that are saved here, since no Hugging Face folder has them.
    """

    named: list[tuple[str, nn.Parameter]]
    optimizer: torch.optim.Optimizer
    weights: list[tuple[str, nn.Parameter]]


def save_checkpoint(
    folder: Path,
    policy: PolicyModel,
    optimizer: torch.optim.Optimizer,
    ranks: Ranks,
    steps_done: int,
    base: Path,
    beside: Mapping[str, bytes],
    lora: LoraConfig | None = None,
) -> None:
    """Write a checkpoint; a collective.

    Args:
        folder: where; created.
        policy, optimizer, ranks: what is saved.
        steps_done: learning steps taken so far.
        base: the folder whose weights adapters go back on top of.
        beside: the model folder's files other than weights.
        lora: the adapters' section of the recipe, where they are all that is trained.
    """
    save_folder(policy, ranks, beside, folder, lora, base)
    record = {
        "steps_done": steps_done,
        "base": str(base.resolve()),
        "adapters": policy.has_adapters,
        "rng": torch.get_rng_state(),
        "rng_cuda": torch.cuda.get_rng_state() if policy.device.type == "cuda" else None,
    }
    write_state(folder, ranks, record, {"policy": _part(policy, optimizer)})


def load_checkpoint(
    folder: Path, policy: PolicyModel, optimizer: torch.optim.Optimizer, ranks: Ranks
) -> tuple[int, Path]:
    """Restore what ``save_checkpoint`` wrote, on as many ranks or others; a collective.

    Returns:
        Learning steps taken, and the folder that adapters (if any) go on top of.

    Raises:
        ModelError: no complete checkpoint there, or one of another model.
    """
    record = read_record(folder)
    if record["adapters"] != policy.has_adapters:
        raise ModelError(
            f"the checkpoint '{folder}' was saved {'with' if record['adapters'] else 'without'} learner.lora"
        )
    base = base_of(folder) if policy.has_adapters else Path(record["base"])
    _restore_weights(policy, base if policy.has_adapters else folder)
    read_state(folder, ranks, record, {"policy": _part(policy, optimizer)})
    torch.set_rng_state(record["rng"])
    if record["rng_cuda"] is not None and policy.device.type == "cuda":
        torch.cuda.set_rng_state(record["rng_cuda"])
    return record["steps_done"], base


def _part(policy: PolicyModel, optimizer: torch.optim.Optimizer) -> Part:
    trained = policy.trainable()
    return Part(list(policy.model.named_parameters()), optimizer, trained if policy.has_adapters else [])


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


def write_state(folder: Path, ranks: Ranks, record: dict[str, Any], parts: Mapping[str, Part]) -> None:
    """Write ``parts`` shard by shard, and then ``record``; a collective. No forward pass may have gathered weights."""
    shared: dict[str, Tensor] = {}
    own: dict[str, Any] = {}
    for place, part in parts.items():
        shared |= {f"{place}/weights/{name}": weight.detach() for name, weight in part.weights}
        for name, weight in part.named:
            for key, value in part.optimizer.state.get(weight, {}).items():
                whole = isinstance(value, Tensor) and not _is_of_one_shard(value, weight)
                (shared if whole else own)[f"{place}/optimizer/{name}/{key}"] = value if whole else _local(value)
    with _quiet():
        dcp.save(shared, checkpoint_id=folder / _SHARDS)
    torch.save(own, folder / _OWN.format(ranks.rank))
    ranks.barrier()
    if ranks.rank == 0:
        about: dict[str, Any] = {"format": _FORMAT, "ranks": ranks.world}
        about |= {"of_one_shard": any(isinstance(value, Tensor) for value in own.values())}
        about |= {"groups": {place: _settings(part.optimizer) for place, part in parts.items()}}
        partial = folder / f"{STATE}.partial"
        torch.save(about | record, partial)
        os.replace(partial, folder / STATE)
    ranks.barrier()


def _settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a complete checkpoint.

    Raises:
        ModelError: there is none, or it is of another release.
    """
    if not (folder / STATE).is_file():
        raise ModelError(f"'{folder}' has no {STATE}, so it is not a complete checkpoint; resume from an earlier one")
    record: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    if record["format"] != _FORMAT:
        raise ModelError(f"'{folder / STATE}' has format {record['format']}, and this release reads {_FORMAT}")
    return record


def read_state(folder: Path, ranks: Ranks, record: dict[str, Any], parts: Mapping[str, Part]) -> None:
    """The inverse of ``write_state``; a collective.

    Raises:
        ModelError: the optimizer's state is of single shards, and there were other shards.
    """
    if record["of_one_shard"] and record["ranks"] != ranks.world:
        raise ModelError(
            f"'{folder}' was saved by {record['ranks']} learner ranks, and its optimizer (apollo or adamw_8bit) keeps "
            f"state that means nothing to {ranks.world}: set learner.ranks: {record['ranks']}"
        )
    saved = dcp.FileSystemReader(folder / _SHARDS).read_metadata().state_dict_metadata
    own_file = folder / _OWN.format(ranks.rank if record["of_one_shard"] else 0)
    own: dict[str, Any] = torch.load(own_file, map_location="cpu", weights_only=True)
    targets: dict[str, Tensor] = {}
    for place, part in parts.items():
        part.optimizer.zero_grad(set_to_none=True)
        part.optimizer.state.clear()
        targets |= {f"{place}/weights/{name}": weight.detach() for name, weight in part.weights}
        for name, weight in part.named:
            prefix = f"{place}/optimizer/{name}/"
            tensors = {key: _target(saved[key], weight) for key in saved if key.startswith(prefix)}
            state = tensors | {key: _like(own[key], weight) for key in own if key.startswith(prefix)}
            targets |= tensors
            if state:
                part.optimizer.state[weight] = {key.removeprefix(prefix): value for key, value in state.items()}
        for group, settings in zip(part.optimizer.param_groups, record["groups"][place], strict=True):
            group.update(settings)
    with _quiet():
        dcp.load(targets, checkpoint_id=folder / _SHARDS)


def _is_of_one_shard(value: Tensor, weight: nn.Parameter) -> bool:
    """Whether this state only has a meaning beside the rows of ``weight`` that one rank holds: of another shape than
    the weight (APOLLO's projections), or quantised in blocks."""
    return value.ndim > 0 and (value.shape != weight.shape or type(_local(value)) is not Tensor)


def _local(value: Any) -> Any:
    return value.to_local() if isinstance(value, DTensor) else value


def _like(value: Any, weight: nn.Parameter) -> Any:
    """State of one shard, back in the form the optimizer made it in."""
    if not isinstance(value, Tensor):
        return value
    value = value.to(weight.device)
    if isinstance(weight, DTensor) and value.shape == weight.to_local().shape:
        where = (weight.device_mesh, weight.placements)
        return DTensor.from_local(value, *where, run_check=False, shape=weight.shape, stride=weight.stride())
    return value


def _target(saved: Any, weight: nn.Parameter) -> Tensor:
    """Where a saved tensor is read into: sharded as its weight is; a step count is whole."""
    if tuple(saved.size) == tuple(weight.shape):
        return torch.empty_like(weight.detach(), dtype=saved.properties.dtype)
    return torch.empty(saved.size, dtype=saved.properties.dtype, device=weight.device)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warnings: that a single rank saves alone, and those about its own internals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
