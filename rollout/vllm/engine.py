"""vLLM as an Engine: requests from asyncio, sampled by vLLM on a thread of its own, here or in another process.

It checks what it is asked before vLLM sees it, since vLLM answers a bad token id by dying. Left out: text, and top-p
and the like (training is only right for the distribution sampled from).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from rlpost.rollout.digest import Held
from rlpost.rollout.engine import EngineError, ProbeResult, Sample, SampleRequest
from rlpost.rollout.parameters import ModelParameters
from rlpost.rollout.transport.ends import Rendezvous
from rlpost.rollout.transport.registry import find
from rlpost.rollout.vllm.config import VllmConfig
from rlpost.rollout.vllm.process import LoopProcess, LoopSetup
from rlpost.rollout.weight_update import DEFAULT_TRANSPORT, Adapters, WeightUpdate

LOWEST_TEMPERATURE = 0.01
"""vLLM silently raises lower ones to this."""
SWITCH_S = 0.0005
"""Seconds that another thread may go on in Python while vLLM's, in the same process, waits to launch the next step.
Python's own 0.005 is as long as a whole step of a small model, and many episodes end at once."""


class VllmEngine:
    """One vLLM engine, in this process or in one of its own; implements ``rlpost.rollout.engine.Engine``.

    The variables of ``engine_environment`` must be set before this process imports vllm. A weight update takes effect
    between two engine steps: running requests keep the tokens they have, their cache is computed anew with the new
    weights, and ``Sample.versions`` says which weights sampled which token.

    Args:
        model: Hugging Face folder or hub name.
        config: the engine's keys.
        max_context: longest sequence in tokens, prompt and sampled tokens together.
        stop_token_ids: tokens that end a turn; a sampled one is part of the sample.
        seed: seed of draws whose request has none.
        deterministic: lock-step; see ``expect``. On a GPU only then does a request draw from its own seed.
        transport: name of the transport that weights will come by, see transport/registry.py.
        version: policy version of the weights in ``model``, -1 where that is not known.
        seeded: each request draws from its own seed, on a GPU too; absent: as ``deterministic``.
        scored: samples' log-probabilities may be asked for; without, sampling is a little faster, and there are no
            probes.
        adapters: what updates will bring, served unmerged; None: they bring whole models.
        own_process: vLLM runs in a process of its own, which ends with this one. Worth it on a GPU, whose steps would
            wait for this process's Python; on a CPU both want the same cores.
        trust_remote_code: run Python code that comes with the model, where vLLM has none of its own for it.

    Raises:
        EngineError: vLLM cannot start; the message has its reason.
        TransportError: there is no such transport.
    """

    def __init__(
        self,
        model: str,
        config: VllmConfig,
        max_context: int,
        stop_token_ids: Sequence[int],
        seed: int = 0,
        deterministic: bool = False,
        transport: str = DEFAULT_TRANSPORT,
        version: int = -1,
        seeded: bool | None = None,
        scored: bool = True,
        adapters: Adapters | None = None,
        own_process: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        self._max_context = max_context
        self._scored = scored
        self._transport = find(transport)
        setup = LoopSetup(
            model,
            config,
            max_context,
            tuple(stop_token_ids),
            seed,
            deterministic,
            transport,
            version,
            deterministic if seeded is None else seeded,
            scored,
            adapters,
            trust_remote_code,
        )
        # Before vLLM starts: for a model that it has no code of its own for it puts layers into transformers' classes.
        self._parameters = ModelParameters.of(model, trust_remote_code)
        if not own_process:
            sys.setswitchinterval(SWITCH_S)
        self._loop = LoopProcess(setup) if own_process else setup.build()
        self._rank = adapters.rank if adapters else 0
        self._one_at_a_time = asyncio.Lock()  # an update must not come between the steps of a probe

    @property
    def version(self) -> int:
        """Version of the weights in use."""
        return self._loop.version

    @property
    def lost(self) -> bool:
        """Whether the engine's own process ended unasked; nothing but a new engine helps."""
        return self._loop.lost

    async def generate(self, request: SampleRequest) -> Sample:
        """Sample one request to its end. Cancelling the call aborts the request.

        Raises:
            EngineError: the request cannot be sampled (the message says why), or the engine died.
        """
        self._check(request.token_ids, f"request '{request.id}'")
        if request.logprobs:
            self._check_scored(f"request '{request.id}'")
        if request.max_tokens < 1:
            raise EngineError(f"request '{request.id}': max_tokens is {request.max_tokens}, there must be room for one")
        if request.temperature != 0 and not request.temperature >= LOWEST_TEMPERATURE:
            raise EngineError(
                f"request '{request.id}': temperature {request.temperature:g} cannot be sampled; it must be 0 (greedy) "
                f"or at least {LOWEST_TEMPERATURE:g}"
            )
        future = self._loop.generate(request)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self.abort(request.id)
            raise

    def _check(self, token_ids: Sequence[int], what: str) -> None:
        if not token_ids or len(token_ids) >= self._max_context:
            raise EngineError(
                f"{what}: its context has {len(token_ids)} tokens; it must have at least 1 and leave room for one more "
                f"within rollout.max_context = {self._max_context}"
            )
        if not 0 <= min(token_ids) <= max(token_ids) < self._loop.vocabulary:
            wrong = next(token for token in token_ids if not 0 <= token < self._loop.vocabulary)
            raise EngineError(f"{what}: token id {wrong} is not in the model's {self._loop.vocabulary} tokens")

    def _check_scored(self, what: str) -> None:
        if not self._scored:
            raise EngineError(
                f"{what}: asks for log-probabilities of an engine that was started without (scored=False)"
            )

    def abort(self, request_id: str) -> None:
        """End a request early; its ``generate`` returns what was sampled so far, ``aborted`` true."""
        self._loop.abort(request_id)

    async def update_weights(self, update: WeightUpdate) -> list[Held]:
        """Switch to new weights between two engine steps and drop everything cached; what each of vLLM's processes then
        holds of them.

        Raises:
            EngineError: the update does not fit the model (nothing was changed), or the engine died.
        """
        self._transport.check(update)
        self._parameters.check(update, self._rank)
        async with self._one_at_a_time:
            return await asyncio.wrap_future(self._loop.update(update))

    async def connect(self, where: Rendezvous) -> None:
        """Join the broadcast that weights will come by; see ``BroadcastEngine``. What is sampled waits meanwhile.

        Raises:
            EngineError: the engine died.
        """
        await asyncio.wrap_future(self._loop.connect(where))

    async def sleep(self) -> None:
        """Give the GPU's memory back until the next ``update_weights``; what runs is aborted. See ``engine.sleep``.

        Raises:
            EngineError: the engine died.
        """
        await asyncio.wrap_future(self._loop.sleep())

    async def probe(self, token_ids: list[list[int]], temperature: float, seed: int) -> ProbeResult:
        """Score fixed sequences at the current version, in one engine step, prefix cache bypassed.

        Other requests go on meanwhile. ``fixed_logprobs`` are at temperature 1; the drawn tokens at ``temperature``.

        Raises:
            EngineError: a sequence cannot be scored, or the engine died.
        """
        self._check_scored("a probe")
        for index, tokens in enumerate(token_ids):
            self._check(tokens, f"probe sequence {index}")
        if not token_ids:
            return ProbeResult(self.version)
        async with self._one_at_a_time:
            return await asyncio.wrap_future(self._loop.probe(token_ids, temperature, seed))

    def expect(self, episodes: int) -> None:
        """Deterministic mode: so many episodes more will each have one request at a time here, until ``episode_done``.

        The engine then steps only while every live episode has a request in it, and admits requests in their
        ``order``: every step's batch is the same in two runs, however long environments take. Without effect in
        other modes.
        """
        self._loop.announce(episodes)

    def episode_done(self) -> None:
        """Deterministic mode: one episode has ended and will ask for nothing more."""
        self._loop.announce(-1)

    def stats(self) -> dict[str, float]:
        """Totals since the start: sampled tokens, engine steps and the seconds they took, prompt tokens and how many of
        them were found in the prefix cache; the requests running and waiting now; and of the last update of the weights
        the seconds it took, and those from its begin to the next token."""
        return self._loop.stats()

    async def close(self) -> None:
        """Stop the engine and free its memory; requests in flight fail with EngineError."""
        await asyncio.to_thread(self._loop.close)
