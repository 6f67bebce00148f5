"""A real vLLM engine in a Ray actor, as in production, and the small model it starts from.

Tests send it scenarios: top-level async functions of the engine, run in the actor. Left out: the rollout worker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlpost.rollout.vllm.config import VllmConfig, engine_environment
from rlpost.rollout.weight_update import WeightUpdate

VOCABULARY = 160
STOP = 9
CONTEXT = 256
CONFIG = VllmConfig(dtype="fp32", slots=4, kv_cache_gib=0.05, threads=1)

Scenario = Callable[..., Awaitable[Any]]


def small_model(seed: int = 0) -> Qwen2ForCausalLM:
    """A two-layer Qwen2 in fp32 with one matrix for embeddings and output head, far from uniform."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=192,
        tie_word_embeddings=True,
        max_position_embeddings=512,
        initializer_range=0.08,
    )
    return Qwen2ForCausalLM(config).eval()


def perturbed(model: Qwen2ForCausalLM, seed: int) -> Qwen2ForCausalLM:
    """``model``'s weights in place, each plus noise of a third of its own spread."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * (0.3 * parameter.std() + 1e-3))
    return model


def update_of(model: torch.nn.Module, version: int) -> WeightUpdate:
    """The model's weights as a publication through the object store."""
    named = [(name, parameter.detach()) for name, parameter in model.named_parameters()]
    return WeightUpdate(
        version=version,
        names=[name for name, _ in named],
        dtypes=["float32"] * len(named),
        shapes=[tuple(weight.shape) for _, weight in named],
        payload=[weight.numpy().copy() for _, weight in named],
    )


def reference_logprobs(model: torch.nn.Module, token_ids: Sequence[int], temperature: float) -> NDArray[np.float64]:
    """(L - 1,) log-probabilities of tokens 1.. under the model at ``temperature``, in fp64."""
    with torch.no_grad():
        logits = model(torch.tensor([list(token_ids)])).logits[0, :-1].double() / temperature
    logprobs = torch.log_softmax(logits, -1).gather(1, torch.tensor(list(token_ids[1:]))[:, None])
    return logprobs[:, 0].numpy()


class EngineHost:
    """The actor; imports vllm only in its own process."""

    def __init__(self, folder: str, config: VllmConfig, options: dict[str, Any]) -> None:
        from rlpost.rollout.vllm.engine import VllmEngine

        self.engine = VllmEngine(folder, config, CONTEXT, [STOP], **options)

    async def run(self, scenario: Scenario, *args: Any) -> Any:
        """Run ``scenario(engine, *args)`` here."""
        return await scenario(self.engine, *args)


@contextmanager
def engine_host(
    folder: Path, config: VllmConfig = CONFIG, variables: Mapping[str, str] | None = None, **options: Any
) -> Iterator[Callable[..., Any]]:
    """Start the actor, with more environment ``variables`` if need be; gives a function ``run(scenario, *args)`` that
    waits for the scenario's result."""
    environment = {"env_vars": {**engine_environment(config, "cpu"), **(variables or {})}}
    # No CPU of Ray's four: one of these actors lives as long as the session, beside runs of four actors.
    actor = ray.remote(EngineHost).options(num_cpus=0, runtime_env=environment).remote(str(folder), config, options)

    def run(scenario: Scenario, *args: Any) -> Any:
        return ray.get(actor.run.remote(scenario, *args), timeout=120)

    try:
        yield run
    finally:
        ray.kill(actor)
