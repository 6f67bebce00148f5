"""Optimizers by name, the learning rate of a step, and clipping the gradient.

``adamw`` is torch's own; a dotted path ``module:Class`` takes any other torch optimizer, and a name can be registered.
The learning rate is a pure function of the step, so there is no scheduler whose state could be lost. Left out:
schedules by optimizer update (a step may have many, or none).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from reward.plugins import Plugin, PluginError
from rlpost.learner.config import OptimizerConfig
from rlpost.learner.errors import ModelError

ParamGroups = list[dict[str, Any]]
Factory = Callable[[ParamGroups, OptimizerConfig], torch.optim.Optimizer]


def _adamw(groups: ParamGroups, config: OptimizerConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, **({"fused": True} | config.options))


REGISTRY: dict[str, Factory] = {"adamw": _adamw}
"""Factories by the name a recipe uses: ``(param groups, config) -> optimizer``."""


def make_optimizer(weights: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """The recipe's optimizer over these weights; only matrices are decayed, not biases or norms.

    Raises:
        ModelError: the name is neither registered nor a class that can be imported, or the class refuses its options.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for _, weight in weights:
        (matrices if weight.ndim >= 2 else others).append(weight)
    groups = [
        {"params": params, "weight_decay": decay}
        for params, decay in ((matrices, config.weight_decay), (others, 0.0))
        if params
    ]
    factory = REGISTRY.get(config.name)
    try:
        return factory(groups, config) if factory else _by_path(groups, config)
    except TypeError as error:
        raise ModelError(f"learner.optimizer.options: '{config.name}' does not take them: {error}") from error


def _by_path(groups: ParamGroups, config: OptimizerConfig) -> torch.optim.Optimizer:
    """A class from ``module:Class``; it gets those of lr and betas that its signature names, and the options."""
    if ":" not in config.name:
        names = ", ".join(sorted(REGISTRY))
        raise ModelError(f"learner.optimizer.name: there is no '{config.name}'; known: {names}, or module:Class")
    try:
        made = Plugin.locate(config.name).load()
    except PluginError as error:
        raise ModelError(f"learner.optimizer.name: {error}") from error
    if not (isinstance(made, type) and issubclass(made, torch.optim.Optimizer)):
        raise ModelError(f"learner.optimizer.name: '{config.name}' is not a torch optimizer")
    known = inspect.signature(made).parameters
    standard: dict[str, Any] = {"lr": config.lr, "betas": config.betas}
    return made(groups, **({key: value for key, value in standard.items() if key in known} | config.options))


def learning_rate(config: OptimizerConfig, step: int, steps_total: int) -> float:
    """Learning rate of 0-based ``step``: (step + 1) / warmup of the peak first, then constant, or down towards 0.

    With p = (step - warmup) / (steps_total - warmup): linear is 1 - p, cosine (1 + cos(pi p)) / 2; both would reach 0
    one step after the last.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = min(1.0, (step - config.warmup_steps) / max(1, steps_total - config.warmup_steps))
    if config.schedule == "linear":
        return config.lr * (1.0 - progress)
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.lr


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use ``rate`` from the next update on."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradient(weights: list[nn.Parameter], most: float) -> float:
    """Scale gradients so that their joint 2-norm is at most ``most`` (0: leave them), and return the norm before.

    Sharded gradients are seen as the whole they are: the norm is the same on any number of ranks. A collective where
    the model is sharded.
    """
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    norm: Tensor = torch.nn.utils.get_total_norm(gradients)
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if most > 0:
        torch.nn.utils.clip_grads_with_norm_(weights, most, norm)
    return float(norm)
