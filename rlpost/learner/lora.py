"""Low-rank adapters (through peft): injected in place, switched off for a reference, merged weight by weight.

With W the frozen matrix and A, B the trained ones, a layer computes with W + (alpha / rank) B A. Left out: dropout,
trained biases, and adapters of anything but linear layers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import LoraConfig as PeftConfig
from peft import inject_adapter_in_model
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rlpost.learner.config import LoraConfig
from rlpost.learner.errors import ModelError
from rlpost.learner.sharding import whole

ALONE = ("default",)


def add_adapters(model: PreTrainedModel, config: LoraConfig, seed: int, names: Sequence[str] = ALONE) -> None:
    """Put adapters on each targeted linear layer and freeze everything else; outputs do not change yet (B is 0).

    Several adapters all start alike and are all trained; the first is the one in use, see ``use``.

    Raises:
        ModelError: a target names no layer of the model, or one that cannot carry an adapter.
    """
    check_targets(model, config.targets)
    peft = PeftConfig(r=config.rank, lora_alpha=config.alpha, target_modules=list(config.targets), lora_dropout=0.0)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # the second adapter is meant
        for adapter in names:
            torch.manual_seed(seed)
            try:
                inject_adapter_in_model(peft, model, adapter)
            except ValueError as error:
                raise ModelError(f"learner.lora.targets: {error}") from error
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and not isinstance(module, LoraLinear):
            raise ModelError(f"learner.lora.targets: '{name}' is not a plain linear layer")
    if isinstance(model.get_output_embeddings(), LoraLinear):
        raise ModelError("learner.lora.targets: the output head cannot carry an adapter; leave it out")
    for _, layer in adapters(model):
        layer.lora_A.requires_grad_(True)
        layer.lora_B.requires_grad_(True)
    use(model, names[0])


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Names of the layers that can carry an adapter: linear ones, but for the output head."""
    head = model.get_output_embeddings()
    return [name for name, one in model.named_modules() if _plain(one) and one is not head]


def _plain(module: nn.Module) -> bool:
    """Whether the module is one matrix product and nothing else; some routers are linear layers that do more."""
    return any(isinstance(module, kind) and type(module).forward is kind.forward for kind in (nn.Linear, Conv1D))


def check_targets(model: PreTrainedModel, targets: Sequence[str]) -> None:
    """A model may lack some of the targets, the default ones too; its weights would be trained in part, in silence.

    Raises:
        ModelError: naming the targets without a layer, and what layers there are.
    """
    ends = {name.rsplit(".", 1)[-1] for name in linear_layers(model)}
    named: dict[str, list[tuple[str, nn.Module]]] = {target: [] for target in targets}
    for name, module in model.named_modules():
        for target in targets:
            if f".{name}".endswith(f".{target}"):
                named[target].append((name, module))
    there = f"its linear layers are {', '.join(sorted(ends))}: set learner.lora.targets to those that are to be trained"
    if missing := [target for target, found in named.items() if not found]:
        raise ModelError(f"learner.lora.targets: {type(model).__name__} has no layer {', '.join(missing)}; {there}")
    for found in named.values():
        for name, module in found:
            if isinstance(module, nn.Linear) and not _plain(module):
                raise ModelError(f"learner.lora.targets: '{name}' is not a plain linear layer; {there}")


def adapters(model: nn.Module) -> list[tuple[str, LoraLinear]]:
    """Names (as in the model without adapters) and layers that carry one."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLinear)]


def use(model: nn.Module, name: str) -> None:
    """Compute with the adapters of this name. Set by hand for the reason ``without_adapters`` gives."""
    for _, layer in adapters(model):
        layer._active_adapter = [name]


def _in_use(layer: LoraLinear) -> str:
    return str(layer.active_adapters[0])


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Compute with the frozen base alone.

    Adapters are scaled by 0 rather than switched off: peft's own switch also flips ``requires_grad``, which a sharded
    model must not see.
    """
    layers = [layer for _, layer in adapters(model)]
    scalings = [layer.scaling[_in_use(layer)] for layer in layers]
    for layer in layers:
        layer.scaling[_in_use(layer)] = 0.0
    try:
        yield
    finally:
        for layer, scaling in zip(layers, scalings, strict=True):
            layer.scaling[_in_use(layer)] = scaling


def merged(layer: LoraLinear) -> Tensor:
    """The layer's full weight with its adapter added, in fp32. A collective where the model is sharded."""
    name = _in_use(layer)
    a, b = (whole(part[name].get_parameter("weight")).float() for part in (layer.lora_A, layer.lora_B))
    return whole(layer.base_layer.get_parameter("weight")).float().addmm(b, a, alpha=layer.scaling[name])
