"""The small protocol every engine keeps, and the records that cross it.

An engine takes token ids and gives token ids with the log-probability of each under the distribution it was
sampled from. Many requests run at once; each is free of the others. Left out: text, templates and environments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rlpost.reward.registry import Registry
from rlpost.rollout.digest import Held
from rlpost.rollout.weight_update import WeightUpdate

ENGINES = Registry(
    "engine",
    {"vllm": "rlpost.rollout.vllm.engine:VllmEngine", "diffusion": "rlpost.rollout.diffusion.engine:DiffusionEngine"},
)
"""What a worker can sample with."""

END_STRIDE = 8
"""Tokens sampled between two questions to a request's ``ends``: decoding text a token would cost as much as a step."""


class EngineError(RuntimeError):
    """The engine died or refused a request; the message says which and why."""


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One turn to be sampled.

    Attributes:
        id: unique within the engine.
        token_ids: the whole context so far (list of int).
        max_tokens: at most this many new tokens.
        temperature: sampling temperature, > 0; 0 means greedy (evaluation only).
        seed: seed of this request's own random draws, or None.
        order: where this request stands among those of its step; requests are admitted in this order in
            deterministic mode.
        logprobs: whether the sample's log-probabilities are wanted; evaluation does without and is a little faster.
        urgent: goes ahead of all that wait.
        ends: asked now and then about the ids sampled so far (at least every ``END_STRIDE`` of them, on a thread of the
            engine's); where it says yes the request is over as if a stop token had been sampled.
    """

    id: str
    token_ids: list[int]
    max_tokens: int
    temperature: float = 1.0
    seed: int | None = None
    order: int = 0
    logprobs: bool = True
    urgent: bool = False
    ends: Callable[[Sequence[int]], bool] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """What was sampled for one request: n tokens.

    Attributes:
        token_ids: (n,) int32, the stop token included where one was sampled.
        logprobs: (n,) float32 under the distribution sampled from; NaN where they were not asked for.
        versions: (n,) int32, version of the weights that sampled each token.
        stopped: true where a stop token (or ``ends``) ended it, false where ``max_tokens`` did.
        aborted: true where ``abort`` ended it.
        commit_steps: (n,) int32, of a diffusion engine: the step of the request that kept each token; else None.
    """

    token_ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    versions: NDArray[np.int32]
    stopped: bool
    aborted: bool = False
    commit_steps: NDArray[np.int32] | None = None


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What an engine says of a fixed probe at its current version; the learner scores the same tokens.

    For each probe sequence i of length L_i: ``fixed_logprobs[i]`` (L_i - 1,) float32 of tokens 1.. of the probe
    at temperature 1. ``sampled_ids[i]``: a token drawn after the probe at the recipe's temperature, and
    ``sampled_logprobs[i]`` its log-probability under the distribution it was drawn from.
    """

    version: int
    fixed_logprobs: list[NDArray[np.float32]] = field(default_factory=list)
    sampled_ids: list[int] = field(default_factory=list)
    sampled_logprobs: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ProbeRows:
    """What an engine is asked about right after new weights.

    Attributes:
        token_ids: rows to score whole, a token to be drawn after each.
        far: a long row, after which ``tokens`` are to be sampled at temperature 1; empty: none.
    """

    token_ids: list[list[int]]
    far: list[int] = field(default_factory=list)
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Adoption:
    """What a worker says once it has new weights.

    Attributes:
        held: what each process of its engine holds of them.
        probe: its log-probabilities of the rows.
        far: what it sampled after the long row, or None.
    """

    held: list[Held]
    probe: ProbeResult
    far: Sample | None = None


class Engine(Protocol):
    """Any engine: vLLM, or a diffusion engine of our own."""

    @property
    def version(self) -> int:
        """Version of the weights in use; -1 until the first update where the engine starts from a checkpoint of
        unknown version, else as given at the start."""
        ...

    async def generate(self, request: SampleRequest) -> Sample:
        """Sample one request to its end. Raises EngineError when the engine died."""
        ...

    def abort(self, request_id: str) -> None:
        """End a request early; its ``generate`` returns what was sampled so far, ``aborted`` true."""
        ...

    async def update_weights(self, update: WeightUpdate) -> list[Held]:
        """Switch to new weights between two engine steps and reset the prefix cache; what each of the engine's
        processes then holds of them, read back from where it computes with them."""
        ...

    async def probe(self, token_ids: list[list[int]], temperature: float, seed: int) -> ProbeResult:
        """Score fixed sequences at the current version, prefix cache bypassed."""
        ...

    async def close(self) -> None:
        """Stop the engine and free its memory."""
        ...
