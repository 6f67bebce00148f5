"""From a model folder to the policy in memory: load in fp32, prove it exact, add adapters, shard.

Left out: where the folder comes from (source.py) and what the policy computes (policy.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from rlpost.learner import lora, probe
from rlpost.learner.attention import TRACED
from rlpost.learner.config import LearnerConfig
from rlpost.learner.errors import ModelError, ModelRefused
from rlpost.learner.optimizers import FRUGAL, weight_dtype
from rlpost.learner.own_forward import OwnForward, PaddedRows
from rlpost.learner.policy import PolicyModel
from rlpost.learner.reading import Reading
from rlpost.learner.rotary import freeze_rotary
from rlpost.learner.sharding import Ranks, shard
from rlpost.learner.source import materialise, quiet
from rlpost.learner.varlen import available
from rlpost.rollout.hf_model import REMOTE_CODE, auto_class

__all__ = ["PolicyModel", "load_model", "materialise"]

CHEAP = 0.7
"""Share of a layer's activations to keep, for torch's partitioner: down to here it recomputes no matrix product."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_model(
    folder: Path | str,
    config: LearnerConfig,
    ranks: Ranks,
    trust: bool = False,
    seed: int = 0,
    compiled: bool = False,
    adapters: Sequence[str] = lora.ALONE,
    max_context: int | None = None,
) -> PolicyModel:
    """Load the policy, prove that its log-probabilities are exact, add adapters, shard; prove it again as it is then.

    Args:
        folder: from ``materialise``.
        config: the recipe's ``learner`` section.
        ranks: who shares the model, and on which device; its mesh decides whether FSDP2 is used.
        trust: run Python code that comes with the model.
        seed: of adapters' initial weights.
        compiled: compile the decoder layers.
        adapters: names of the adapters, where there are any.
        max_context: tokens of the longest sequence of the run; None: as long as the model allows.

    Raises:
        ModelError: the weights cannot be read.
        ModelRefused: no way of ours to compute log-probabilities is exact for this model.
    """
    compute = DTYPES[config.compute_dtype(ranks.device.type)]
    load_on = ranks.device if ranks.world == 1 else torch.device("cpu")  # a shard may fit where the whole does not
    model = _read(folder, trust).to(load_on).eval()  # for good: see PolicyModel.train
    policy, own = _exact(model, max_context)
    policy.compute = compute
    policy.alone = ranks.world == 1
    policy.offload = config.gradient_checkpointing == "offload"
    if config.lora is not None:
        lora.add_adapters(model, config.lora, seed, adapters)
        for weight in model.parameters():
            if not weight.requires_grad:
                weight.data = weight.data.to(compute)  # frozen weights need no fp32 master
    if weight_dtype(config.optimizer.name) is torch.bfloat16:
        if compute is not torch.bfloat16:
            raise ModelError(
                f"learner.optimizer.name: '{config.optimizer.name}' holds the weights in bf16; set learner.dtype: bf16"
            )
        for weight in model.parameters():
            weight.data = weight.data.to(compute)
    if ranks.mesh is not None:
        shard(policy, [] if _roomy(config, ranks, model) else policy.layers(), ranks.mesh, compute)
    if policy.packs and available(policy.device, compute):
        policy.padded = not probe.kernel_agrees(policy)
    if own is not None:
        probe.confirm(policy, own)
    if compiled and policy.packs:
        _compile(policy)
    if config.gradient_checkpointing:
        policy.checkpoint_layers()
    return policy


def _exact(model: Any, max_context: int | None) -> tuple[PolicyModel, probe.Reference | None]:
    """The fastest way to compute this model that gives its own numbers, and those; none are compared of a diffusion
    model that brings its own code, which is only ever computed as it is.

    Raises:
        ModelRefused: there is none; the message says what each way differs in.
    """
    causal = Reading.of(model.config).causal
    if type(model).__module__.startswith(REMOTE_CODE) and not causal:
        return OwnForward(model, torch.float32), None
    refuse_recurrent(model)
    freeze_rotary(model, max_context)
    policy = PolicyModel(model, torch.float32)
    own = probe.reference(policy, max_context)
    reasons = []
    for attention in (None, "sdpa", "eager") if causal else (None,):
        try:
            if attention is not None:
                policy = PaddedRows(model, torch.float32, attention=attention)
            probe.check(policy, own)
        except (ModelRefused, ValueError) as error:  # transformers' own refusal of an attention it has not
            reasons.append(f"{_WAYS[attention]}: {error}")
        else:
            return policy, own
    raise ModelRefused(f"{type(model).__name__} is refused. " + "; ".join(reasons))


_WAYS = {
    None: "packed",
    "sdpa": "each sequence in a row of its own, with torch's attention",
    "eager": "each sequence in a row of its own, with plain attention",
}


def refuse_recurrent(model: nn.Module) -> None:
    """Refuse models with layers that carry a state along the sequence.

    Raises:
        ModelRefused: naming the first of them.
    """
    for name, module in model.named_modules():
        known = any(word in type(module).__name__ for word in _RECURRENT)
        if known and not isinstance(module, PreTrainedModel):
            raise ModelRefused(
                f"{type(model).__name__} is refused: layer '{name}' ({type(module).__name__}) carries a recurrent "
                "state, which a pack would hand on from one sequence to the next, and there is no other way for it here"
            )


_RECURRENT = ("Mamba", "GatedDeltaNet", "ShortConv", "RecurrentBlock", "LinearAttention", "LightningAttention", "Rwkv")


def _compile(policy: PolicyModel) -> None:
    """Each layer becomes one graph, attention's kernel included, where there is one; layers share what is compiled, and
    what FSDP2 does around a layer stays outside. There is a graph for each way a layer is called (learning or scoring,
    with shared prompts or without, trained or frozen); torch's limit of 8 counts all learners of a process, and beyond
    it layers would no longer be compiled, which gradient checkpointing does not survive. What a layer's backward pass
    can compute anew from its neighbours in memory (norms, the gate's product) is not kept for it: a third of the
    activations."""
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    torch._functorch.config.activation_memory_budget = CHEAP
    if not policy.padded:
        policy.model.set_attn_implementation(TRACED)
    for layer in policy.layers():
        setattr(layer, "forward", torch.compile(layer.forward, dynamic=True))  # noqa: B010  (mypy: not a method)


def _roomy(config: LearnerConfig, ranks: Ranks, model: nn.Module) -> bool:
    """Whether there is one rank, nothing in the recipe says that its memory is short, and half of a GPU is enough for
    AdamW's 26 bytes a weight when the whole model's gradients are handed over at once: masters and moments 12, weights
    in bf16 2, gradients three times in fp32."""
    if ranks.world > 1 or config.gradient_checkpointing or config.optimizer.name in FRUGAL:
        return False
    weights = sum(weight.numel() for weight in model.parameters())
    on_gpu = ranks.device.type == "cuda"
    return not on_gpu or 26 * weights < torch.cuda.get_device_properties(ranks.device).total_memory / 2


def _read(folder: Path | str, trust: bool) -> Any:
    if not Path(folder).is_dir():
        raise ModelError(f"model.path: there is no folder '{folder}'")
    try:
        with quiet():
            return auto_class(folder, trust).from_pretrained(folder, dtype=torch.float32, trust_remote_code=trust)
    except Exception as error:
        raise ModelError(f"model.path: the model in '{folder}' cannot be loaded: {error}") from error


def read_weights(folder: Path, like: PreTrainedModel) -> PreTrainedModel:
    """The fp32 weights in ``folder`` as a model of the same class as ``like``, on the CPU.

    Raises:
        ModelError: they cannot be read.
    """
    model: PreTrainedModel = _read(folder, trust=type(like).__module__.startswith(REMOTE_CODE))
    return model
