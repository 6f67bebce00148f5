"""Rotary scaling that transformers decides anew at every call, fixed once as vLLM fixes it when it starts.

``longrope`` takes its long factors where the longest position of a call lies beyond the original context, ``dynamic``
stretches the base by it: a sequence packed beside a longer one would get other frequencies, and so would one in a
later, longer call. vLLM chooses by the longest sequence it may ever see (``rollout.max_context``). Left out: types of
scaling that do not depend on the call (linear, yarn, llama3), which are as they are.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from rlpost.learner.errors import ModelRefused

_DEPENDS_ON_THE_CALL = ("longrope", "dynamic")


def freeze_rotary(model: PreTrainedModel, max_context: int | None) -> None:
    """Give every rotary module of ``model`` the frequencies it has in an engine whose sequences end at ``max_context``.

    Args:
        model: changed in place.
        max_context: tokens of the longest sequence of the run; None: as long as the configuration allows.

    Raises:
        ModelRefused: the engine would compute other frequencies than transformers has for any length.
    """
    for name, module in model.named_modules():
        types = getattr(module, "rope_type", None)
        if isinstance(types, str):
            if types in _DEPENDS_ON_THE_CALL:
                _fix(name, module, types, None, max_context)
                setattr(module, "rope_type", "default")  # noqa: B010  (mypy: not a tensor)
        elif isinstance(types, dict):
            chosen = {layer: kind for layer, kind in types.items() if kind in _DEPENDS_ON_THE_CALL}
            for layer, kind in chosen.items():
                _fix(name, module, kind, layer, max_context)
            setattr(module, "rope_type", types | dict.fromkeys(chosen, "default"))  # noqa: B010


def _fix(name: str, module: Any, kind: str, layer: str | None, max_context: int | None) -> None:
    config = module.config
    parameters = config.rope_parameters if layer is None else config.rope_parameters[layer]
    longest = max_context or config.max_position_embeddings
    frequencies = _longrope if kind == "longrope" else _dynamic
    inv_freq, scaling = frequencies(name, config, parameters, layer, longest)
    prefix = "" if layer is None else f"{layer}_"
    if not (kind == "dynamic" and "alpha" in parameters):  # that model's own code has stretched the base for good
        own: Tensor = getattr(module, f"{prefix}inv_freq")
        own.copy_(inv_freq.to(own.device))
    setattr(module, f"{prefix}attention_scaling", scaling)
    if layer is None:  # PhiMoE asks for both at every call, and for a factor by length
        module.rope_init_fn = lambda *_, **__: (inv_freq, scaling)
        module.config = _with_one_scale(config, scaling)


def _longrope(
    name: str, config: Any, parameters: dict[str, Any], layer: str | None, longest: int
) -> tuple[Tensor, float]:
    """Long factors where the engine's context is longer than the original one, short ones elsewhere."""
    original = parameters["original_max_position_embeddings"]
    is_long = longest > original
    inv_freq, _ = ROPE_INIT_FUNCTIONS["longrope"](
        config, torch.device("cpu"), seq_len=original + 1 if is_long else None, **_of_layer(layer)
    )
    ratio = config.max_position_embeddings / original
    usual = math.sqrt(1 + math.log(ratio) / math.log(original)) if ratio > 1 else 1.0
    given = parameters.get("attention_factor")
    if given is not None and abs(given - usual) > 1e-6:
        raise ModelRefused(
            f"'{name}' has rotary scaling 'longrope' with attention_factor {given:g}, and vLLM computes "
            f"{usual:g} whatever the configuration says: remove attention_factor from rope_parameters"
        )
    mscale = parameters.get("long_mscale" if is_long else "short_mscale")
    return inv_freq, float(usual if mscale is None else mscale)


def _dynamic(
    name: str, config: Any, parameters: dict[str, Any], layer: str | None, longest: int
) -> tuple[Tensor, float]:
    """vLLM's base is the one for a sequence as long as the configuration's positions, and it has no others."""
    positions = config.max_position_embeddings
    if longest > positions and "alpha" not in parameters:
        raise ModelRefused(
            f"'{name}' has rotary scaling 'dynamic', of which vLLM has the {positions} positions of "
            f"max_position_embeddings alone: set rollout.max_context ({longest}) to at most that"
        )
    if "max_trained_positions" in parameters:
        raise ModelRefused(
            f"'{name}' has rotary scaling 'dynamic' with max_trained_positions, which transformers does not know"
        )
    inv_freq, scaling = ROPE_INIT_FUNCTIONS["dynamic"](
        config, torch.device("cpu"), seq_len=positions, **_of_layer(layer)
    )
    return inv_freq, float(scaling)


def _of_layer(layer: str | None) -> dict[str, Any]:
    return {} if layer is None else {"layer_type": layer}


def _with_one_scale(config: Any, scale: float) -> Any:
    """A copy for one module, which gives the same scale for calls of any length."""
    copied = type(config).from_dict(config.to_dict())
    copied.rope_parameters = config.rope_parameters | {"long_mscale": scale, "short_mscale": scale}
    return copied
