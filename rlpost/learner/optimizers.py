"""Optimizers by name, the learning rate of a step, and clipping the gradient.

    adamw        torch's own, fused; fp32 weights
    adamw_bf16   bf16 weights, rounded stochastically, moments in fp32 (torchao)
    adamw_8bit   moments in 8 bits (torchao)
    lisa         adamw, of a few layers at a time (lisa.py)
    lion         signs of a momentum (lion-pytorch)
    apollo, apollo_mini   apollo.py

``module:Class`` or ``file.py:Class`` takes any other torch optimizer. The learning rate is a
pure function of the step, so there is no scheduler whose state could be lost. Left out: schedules by optimizer update
(a step may have many, or none).
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rlpost.learner.apollo import Apollo
from rlpost.learner.config import OPTIMIZERS, LisaConfig, OptimizerConfig
from rlpost.learner.errors import ModelError
from rlpost.reward.plugins import Plugin, PluginError

ParamGroups = list[dict[str, Any]]

EMBEDDINGS = ("embed", "lm_head", "wte", "wpe")
"""Parts of the names of embeddings and output heads, which low-rank optimizers leave alone."""


def adamw(groups: ParamGroups, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Torch's own, fused; fp32 weights."""
    return torch.optim.AdamW(groups, **{"lr": config.lr} | {"fused": True} | config.options)


def lisa(groups: ParamGroups, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW; which layers it trains, lisa.py decides."""
    own = {key: value for key, value in config.options.items() if key not in LisaConfig.model_fields}
    return adamw(groups, config.model_copy(update={"options": own}))


def adamw_bf16(groups: ParamGroups, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Bf16 weights, rounded stochastically, moments in fp32 (torchao)."""
    base = _extra(config, "torchao.optim", "_AdamW", "torchao")

    class StochasticAdamW(_eager_on_cpu(base)):  # type: ignore[misc]
        """torchao would hold the moments in bf16 too, where beta2 = 0.999 never moves the second one."""

        def _new_buffer(self, weight: Tensor, signed: bool) -> Tensor:
            return torch.zeros_like(weight, dtype=torch.float32)

    made: torch.optim.Optimizer = StochasticAdamW(
        groups, **{"lr": config.lr} | {"bf16_stochastic_round": True} | config.options
    )
    return made


def adamw_8bit(groups: ParamGroups, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Moments in 8 bits (torchao)."""
    base = _eager_on_cpu(_extra(config, "torchao.optim", "AdamW8bit", "torchao"))
    made: torch.optim.Optimizer = base(groups, **{"lr": config.lr} | config.options)
    return made


def lion(groups: ParamGroups, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Signs of a momentum (lion-pytorch)."""
    options = {"lr": config.lr or 1.0}  # it refuses 0; every step sets the rate anyway
    made: torch.optim.Optimizer = _extra(config, "lion_pytorch", "Lion", "optimizers")(
        groups, **options | config.options
    )
    return made


def apollo(groups: ParamGroups, config: OptimizerConfig) -> torch.optim.Optimizer:
    """See apollo.py."""
    return Apollo(groups, **{"lr": config.lr} | config.options)


def apollo_mini(groups: ParamGroups, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Apollo of rank 1."""
    return Apollo(groups, **{"lr": config.lr} | {"rank": 1, "scale": 128.0, "per_tensor": True} | config.options)


FRUGAL = frozenset({"adamw_bf16", "adamw_8bit", "lisa", "apollo", "apollo_mini"})
"""Those that are chosen to save memory."""


def weight_dtype(name: str) -> torch.dtype:
    """What dtype the optimizer wants trained weights in: fp32, but for one that rounds stochastically."""
    return torch.bfloat16 if name == "adamw_bf16" else torch.float32


def _extra(config: OptimizerConfig, module: str, name: str, extra: str) -> Any:
    """A class of an optional package, which is an extra of this one."""
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ModelError(
            f"learner.optimizer.name: '{config.name}' needs the package {module.split('.')[0]}: "
            f"pip install 'rlpost[{extra}]' ({error})"
        ) from error


def _eager_on_cpu(base: Any) -> Any:
    """torchao compiles its update for every shape of weight: worth it on a GPU, minutes of C++ on a CPU."""

    class Eager(base):  # type: ignore[misc]
        def step(self, closure: Callable[[], float] | None = None) -> float | None:
            on_gpu = self.param_groups[0]["params"][0].is_cuda
            with torch.compiler.set_stance("default" if on_gpu else "force_eager"):
                done: float | None = super().step(closure)
            return done

    return Eager


def make_optimizer(
    weights: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig, code: Plugin | None = None
) -> torch.optim.Optimizer:
    """The recipe's optimizer over these weights; only matrices are decayed, not biases or norms.

    Its groups carry a ``kind``: ``matrices``, ``embeddings`` (the output head among them) or ``others``.

    Args:
        weights: names and weights that are trained.
        config: the recipe's ``learner.optimizer``.
        code: what ``config.name`` means, where it was located before.

    Raises:
        ModelError: the name is neither known nor a torch optimizer's class, its package is missing, or it refuses its
            options.
    """
    kinds: dict[str, list[nn.Parameter]] = {"matrices": [], "embeddings": [], "others": []}
    for name, weight in weights:
        embeds = any(part in name for part in EMBEDDINGS)
        vector = weight.ndim < 2 or name.endswith("bias")  # biases of all experts lie in one tensor
        kinds["others" if vector else "embeddings" if embeds else "matrices"].append(weight)
    groups = [
        {"params": params, "weight_decay": 0.0 if kind == "others" else config.weight_decay, "kind": kind}
        for kind, params in kinds.items()
        if params
    ]
    try:
        found = OPTIMIZERS.load(code or config.name)
    except PluginError as error:
        raise ModelError(f"learner.optimizer.name: {error}") from error
    own = config.name not in OPTIMIZERS.names
    if own and not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise ModelError(f"learner.optimizer.name: '{config.name}' is not a torch optimizer")
    try:
        made: torch.optim.Optimizer = _own(found, groups, config) if own else found(groups, config)
    except (TypeError, ValueError) as error:
        raise ModelError(f"learner.optimizer.options: '{config.name}' does not take them: {error}") from error
    return made


def _own(kind: type[torch.optim.Optimizer], groups: ParamGroups, config: OptimizerConfig) -> torch.optim.Optimizer:
    """A user's class: it gets the learning rate where its signature names it, and the options."""
    rate = {"lr": config.lr} if "lr" in inspect.signature(kind).parameters else {}
    return kind(groups, **rate | config.options)


def check_optimizer(config: OptimizerConfig, code: Plugin) -> None:
    """Make the recipe's optimizer over a few weights, so that wrong options are found before a model is loaded.

    Raises:
        ModelError: see ``make_optimizer``.
    """
    weights = {"layers.0.weight": (8, 8), "layers.0.bias": (8,), "embed_tokens.weight": (8, 8)}
    made = [(name, nn.Parameter(torch.zeros(shape))) for name, shape in weights.items()]
    make_optimizer(made, config, code)


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
        if isinstance(group["lr"], Tensor):  # torchao compiles with the rate as a tensor
            group["lr"].fill_(rate)
        else:
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
