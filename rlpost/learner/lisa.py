"""LISA (arXiv 2403.17919): of all decoder layers only a few, drawn anew every few steps, are trained at a time.

Embeddings, output head and last norm are always trained (unless ``train_embeddings`` is off: the norm alone). A layer
that is not drawn has no gradient and no optimizer state; the moments of what is always trained are kept. The draw is a
function of seed and step alone, so ranks agree and a resumed run goes on alike. Left out: drawing layers by importance.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from rlpost.learner.config import LisaConfig
from rlpost.learner.errors import ModelError
from rlpost.learner.policy import PolicyModel


def drawn_layers(config: LisaConfig, layers: int, seed: int, step: int) -> list[int]:
    """Indices, ascending, of the ``config.layers`` distinct layers that are trained in 0-based ``step``."""
    rng = np.random.default_rng([seed, step // config.every])
    return sorted(int(index) for index in rng.choice(layers, config.layers, replace=False))


class Lisa:
    """Switches layers of one model on and off.

    Args:
        policy: the model, sharded already where it is.
        optimizer: made over all of its weights.
        config: the options of ``learner.optimizer: {name: lisa}``.
        seed: the same on all ranks.

    Raises:
        ModelError: the model has fewer layers, or only its adapters are trained.
    """

    def __init__(self, policy: PolicyModel, optimizer: torch.optim.Optimizer, config: LisaConfig, seed: int) -> None:
        self._policy, self._optimizer, self._config, self._seed = policy, optimizer, config, seed
        self._layers = policy.layers()
        self.active: list[int] | None = None
        if policy.has_adapters:
            raise ModelError("learner.optimizer.name: lisa trains layers and learner.lora adapters: keep one")
        if config.layers > len(self._layers):
            raise ModelError(
                f"learner.optimizer.options.layers: {config.layers} layers are to be trained at a time and the model "
                f"has {len(self._layers)}"
            )
        if isinstance(policy, FSDPModule):
            _first_pass(policy)
        if not config.train_embeddings:
            model = policy.model
            for part in (model.get_input_embeddings(), model.get_output_embeddings()):
                self._switch(part.parameters(), on=False)

    def activate(self, step: int) -> None:
        """Make the layers of ``step`` the trained ones; called before the step's first forward pass."""
        active = drawn_layers(self._config, len(self._layers), self._seed, step)
        if active == self.active:
            return
        self._policy.settle()
        for index, layer in enumerate(self._layers):
            self._switch(layer.parameters(), on=index in active)
        self.active = active

    def _switch(self, weights: Iterable[nn.Parameter], on: bool) -> None:
        for weight in weights:
            weight.requires_grad_(on)
            if not on:
                weight.grad = None
                self._optimizer.state.pop(weight, None)


@torch.no_grad()
def _first_pass(policy: PolicyModel) -> None:
    """FSDP2 settles the dtype of a layer's gradients in the first forward pass, and only where the layer is trained
    then. So one pass over a single token comes before any layer is frozen; a collective."""
    token = torch.zeros(1, 1, dtype=torch.int64, device=policy.device)
    policy(token, policy.layout([1]), token[0], token[0])
    policy.settle()
