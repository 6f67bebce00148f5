"""Low-rank adapters (through peft): injected in place, switched off for a reference, handed out as factors or merged.

With W the frozen matrix and A, B the trained ones, a layer computes with W + (alpha / rank) B A. Left out: dropout,
trained biases, and adapters of anything but linear layers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig as PeftConfig
from peft import inject_adapter_in_model
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rlpost.learner.config import LoraConfig
from rlpost.learner.errors import ModelError
from rlpost.learner.sharding import whole
from rlpost.rollout.hf_model import auto_class

ALONE = ("default",)


def add_adapters(model: PreTrainedModel, config: LoraConfig, seed: int, names: Sequence[str] = ALONE) -> None:
    """Put adapters on each targeted linear layer and freeze everything else; outputs do not change yet (B is 0).

    Several adapters all start alike and are all trained; the first is the one in use, see ``use``.

    Raises:
        ModelError: a target names no layer of the model, or one that cannot carry an adapter.
    """
    chosen = [f"0.{name}" for name in targeted(model, config.targets)]
    holder = nn.ModuleList([model])  # of a transformers model itself, peft would also wrap experts' tensors
    peft = PeftConfig(r=config.rank, lora_alpha=config.alpha, target_modules=chosen, lora_dropout=0.0)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # the second adapter is meant
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")  # peft then sets it itself
        for adapter in names:
            torch.manual_seed(seed)
            inject_adapter_in_model(peft, holder, adapter)
    for _, layer in adapters(model):
        layer.lora_A.requires_grad_(True)
        layer.lora_B.requires_grad_(True)
    use(model, names[0])


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Names of the layers that can carry an adapter: linear ones, but for the output head."""
    head = model.get_output_embeddings()
    return [name for name, one in model.named_modules() if _plain(one) and one is not head]


def _plain(module: nn.Module) -> bool:
    """Whether the module is a matrix product: some routers are linear layers that give experts and their weights."""
    if not isinstance(module, (nn.Linear, Conv1D)):
        return False
    if type(module).forward in (nn.Linear.forward, Conv1D.forward):
        return True
    rows, columns = module.weight.shape
    try:
        with torch.no_grad():
            given = module(module.weight.new_zeros(1, columns))
    except Exception:  # it wants more than its input
        return False
    return isinstance(given, Tensor) and given.shape == (1, rows)


def targeted(model: PreTrainedModel, targets: Sequence[str]) -> list[str]:
    """Full names of the layers that get an adapter. A model may lack some of the targets, the default ones too, and
    would be trained in part, in silence; so every target must name plain linear layers and nothing else.

    Raises:
        ModelError: naming the targets that do not, and what layers there are.
    """
    layers = linear_layers(model)
    ends = sorted({name.rsplit(".", 1)[-1] for name in layers})
    there = f"its linear layers are {', '.join(ends)}: set learner.lora.targets to those that are to be trained"
    modules = {target: [n for n, _ in model.named_modules() if _names(target, n)] for target in targets}
    if missing := [target for target, found in modules.items() if not found]:
        raise ModelError(f"learner.lora.targets: {type(model).__name__} has no layer {', '.join(missing)}; {there}")
    for name, weight in model.named_parameters():
        if weight.ndim == 3 and (target := next((one for one in targets if _names(one, name)), None)):
            longer = {".".join(layer.split(".")[-2:]) for layer in layers if _names(target, layer)}
            raise ModelError(
                f"learner.lora.targets: '{target}' also names '{name}', which holds all experts of a layer in one "
                f"tensor and cannot carry adapters; name the linear layers by more of their names: "
                f"{', '.join(sorted(longer))}"
            )
    for name in (name for found in modules.values() for name in found):
        if name not in layers:
            what = "the output head" if model.get_submodule(name) is model.get_output_embeddings() else "not a plain"
            what += " and cannot carry an adapter" if what == "the output head" else " linear layer"
            raise ModelError(f"learner.lora.targets: '{name}' is {what}; {there}")
    return [name for name in layers if any(_names(target, name) for target in targets)]


def check_targets(folder: Path | str, config: LoraConfig, trust_remote_code: bool = False) -> None:
    """Refuse targets before anything is started: asked of the model's skeleton, without its weights.

    Raises:
        ModelError: see ``targeted``.
    """
    with torch.device("meta"):
        made = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        skeleton = auto_class(folder, trust_remote_code).from_config(made, trust_remote_code=trust_remote_code)
    targeted(skeleton, config.targets)


def _names(target: str, name: str) -> bool:
    return f".{name}".endswith(f".{target}")


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


def shape(layer: LoraLinear, kind: str) -> tuple[int, ...]:
    """Of one factor, "lora_A" or "lora_B"."""
    return tuple(getattr(layer, kind)[_in_use(layer)].get_parameter("weight").shape)


def factors(layer: LoraLinear) -> tuple[Tensor, Tensor]:
    """A (rank, in) and (alpha / rank) B (out, rank), in fp32. A collective where the model is sharded."""
    name = _in_use(layer)
    a, b = (whole(part[name].get_parameter("weight")).float() for part in (layer.lora_A, layer.lora_B))
    return a, b * layer.scaling[name]


def merged(layer: LoraLinear) -> Tensor:
    """The layer's full weight with its adapter added, in fp32. A collective where the model is sharded."""
    a, b = factors(layer)
    weight = whole(layer.base_layer.get_parameter("weight")).float()
    if layer.fan_in_fan_out:  # GPT-2 keeps its matrices the other way round
        return weight.t().addmm(b, a).t()
    return weight.addmm(b, a)
