"""A masked-diffusion model as an Engine: requests from asyncio, decoded in batches on a thread.

Requests that wait when a batch ends make the next one, in their order, up to ``slots`` of equal response length; a
batch is decoded to its end with one version of the weights. Left out: requests that join a batch under way (their
blocks would stand in other columns), and several GPUs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlpost.rollout.diffusion.config import DiffusionConfig
from rlpost.rollout.diffusion.decode import Row, decode, draw
from rlpost.rollout.diffusion.model import BlockModel, adapted_name
from rlpost.rollout.diffusion.states import IMPOSSIBLE, probe_ids, probe_masks
from rlpost.rollout.digest import Held, read, whole_piece
from rlpost.rollout.engine import EngineError, ProbeResult, Sample, SampleRequest
from rlpost.rollout.parameters import ModelParameters
from rlpost.rollout.transport.registry import find
from rlpost.rollout.weight_update import DEFAULT_TRANSPORT, Adapters, WeightUpdate

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
GATHER_S = 0.002
"""A batch is not begun while requests keep coming, within so many seconds of one another."""


@dataclass(slots=True)
class _Waiting:
    request: SampleRequest
    answer: asyncio.Future[Sample]


class DiffusionEngine:
    """Implements ``rlpost.rollout.engine.Engine``.

    Args:
        model: Hugging Face folder or hub name.
        config: how responses are filled.
        dtype: "fp32", "bf16" or "fp16".
        device: "cpu" or "cuda".
        slots: rows of a batch, at most.
        max_context: longest sequence in tokens, prompt and response together.
        stop_token_ids: tokens that end a response.
        seed: of requests that have none.
        deterministic: lock-step; see ``expect``.
        transport: name of the transport that weights will come by, which must not be one that connects.
        version: policy version of the weights in ``model``.
        trust_remote_code: run Python code that comes with the model.
        adapters: what updates will bring, computed unmerged; None: they bring whole models.

    Raises:
        EngineError: the model cannot be loaded or is no masked-diffusion model.
        TransportError: there is no such transport.
    """

    def __init__(
        self,
        model: str,
        config: DiffusionConfig,
        max_context: int,
        stop_token_ids: Sequence[int],
        dtype: str = "fp32",
        device: str = "cpu",
        slots: int = 128,
        seed: int = 0,
        deterministic: bool = False,
        transport: str = DEFAULT_TRANSPORT,
        version: int = -1,
        trust_remote_code: bool = False,
        adapters: Adapters | None = None,
    ) -> None:
        self._model = BlockModel.load(model, DTYPES[dtype], device, config.cache, trust_remote_code)
        self._parameters = ModelParameters.of_module(self._model.model)
        self._rank = adapters.rank if adapters else 0
        if adapters is not None:
            self._model.add_adapters(adapters.rank, adapters.targets)
        self._config = config
        self._max_context = max_context
        self._stop_token_ids = list(stop_token_ids)
        self._slots = slots
        self._seed = seed
        self._lock_step = deterministic
        self._transport = find(transport)
        self.version = version
        self._waiting: list[_Waiting] = []
        self._aborted: set[str] = set()
        self._live = 0
        self._pump: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()  # batches, updates and probes
        self._tokens = 0
        self._seconds = 0.0

    async def generate(self, request: SampleRequest) -> Sample:
        """Sample one response. Cancelling the call aborts the request.

        Raises:
            EngineError: the request cannot be sampled (the message says why), or decoding failed.
        """
        self._check(request)
        waiting = _Waiting(request, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._serve())
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            self.abort(request.id)
            raise

    def _check(self, request: SampleRequest) -> None:
        what, ids = f"request '{request.id}'", request.token_ids
        if not ids or len(ids) + request.max_tokens > self._max_context:
            raise EngineError(
                f"{what}: a prompt of {len(ids)} tokens and a response of {request.max_tokens} do not fit "
                f"rollout.max_context = {self._max_context}"
            )
        if request.max_tokens < 1 or request.max_tokens % self._config.block:
            raise EngineError(
                f"{what}: a response of {request.max_tokens} tokens is not a multiple of engine.block = "
                f"{self._config.block}; where rollout.max_new_tokens is one, raise rollout.max_context"
            )
        if not 0 <= min(ids) <= max(ids) < self._model.vocabulary or self._model.mask_token_id in ids:
            wrong = next(n for n in ids if not 0 <= n < self._model.vocabulary or n == self._model.mask_token_id)
            raise EngineError(f"{what}: token id {wrong} is the mask token, or not one of {self._model.vocabulary}")

    async def _serve(self) -> None:
        """Decode batches while any request waits."""
        while self._waiting:
            await self._gathered()
            batch = self._next_batch()
            if not batch:
                continue
            async with self._one_at_a_time:
                try:
                    samples = await asyncio.to_thread(self._decode, [waiting.request for waiting in batch])
                except Exception as error:  # whatever it was, each request must hear of it
                    for waiting in batch:
                        if not waiting.answer.done():
                            waiting.answer.set_exception(
                                EngineError(f"decoding failed: {type(error).__name__}: {error}")
                            )
                    continue
            for waiting, sample in zip(batch, samples, strict=True):
                self._aborted.discard(waiting.request.id)
                if not waiting.answer.done():
                    waiting.answer.set_result(sample)

    async def _gathered(self) -> None:
        """Wait until no more requests are coming: in lock-step, until each live episode has one here."""
        seen = -1
        while self._waiting and (len(self._waiting) < self._live if self._lock_step else seen != len(self._waiting)):
            seen = len(self._waiting)
            await asyncio.sleep(GATHER_S)

    def _next_batch(self) -> list[_Waiting]:
        """Up to ``slots`` waiting requests that can be decoded together; aborted ones are answered."""
        for waiting in [one for one in self._waiting if one.request.id in self._aborted]:
            self._waiting.remove(waiting)
            self._aborted.discard(waiting.request.id)
            if not waiting.answer.done():
                nothing = np.zeros(0, dtype=np.int32)
                waiting.answer.set_result(Sample(nothing, nothing.astype(np.float32), nothing, False, aborted=True))
        if not self._waiting:
            return []
        self._waiting.sort(key=lambda one: one.request.order)
        kind = self._kind(self._waiting[0].request)
        batch = [one for one in self._waiting if self._kind(one.request) == kind][: self._slots]
        self._waiting = [one for one in self._waiting if one not in batch]
        return batch

    def _kind(self, request: SampleRequest) -> tuple[int, int]:
        """Requests of one kind can share a batch; a model's own code knows nothing of padding."""
        return request.max_tokens, len(request.token_ids) if self._model.own_code else 0

    def _decode(self, requests: list[SampleRequest]) -> list[Sample]:
        started = time.monotonic()
        rows = [
            Row(
                one.token_ids,
                one.temperature,
                self._seed if one.seed is None else one.seed,
                partial(self._aborted.__contains__, one.id),
            )
            for one in requests
        ]
        samples = decode(self._model, rows, requests[0].max_tokens, self._config, self._stop_token_ids, self.version)
        if not all(np.isfinite(sample.logprobs).all() for sample in samples):
            raise EngineError(f"the model's log-probabilities are not finite at weights version {self.version}")
        self._tokens += sum(len(sample.token_ids) for sample in samples)
        self._seconds += time.monotonic() - started
        return samples

    def abort(self, request_id: str) -> None:
        """End a request early, at its next block; its ``generate`` returns what was sampled so far."""
        self._aborted.add(request_id)

    async def update_weights(self, update: WeightUpdate) -> list[Held]:
        """Switch to new weights between two batches.

        Raises:
            EngineError: the update does not fit the model; nothing was changed.
        """
        self._transport.check(update)
        self._parameters.check(update, self._rank)
        async with self._one_at_a_time:
            held = await asyncio.to_thread(self._load, update)
            self.version = update.version
            return held

    @torch.no_grad()
    def _load(self, update: WeightUpdate) -> list[Held]:
        weights = dict(self._model.model.named_parameters(remove_duplicate=False))
        taken = {}
        for name, sent in self._transport.tensors(update):
            weight = weights[adapted_name(name) if update.rank else name]
            weight.copy_(sent)
            taken[name] = whole_piece(weight)
        return [{name: [piece] for name, piece in zip(taken, read(list(taken.values())), strict=True)}]

    async def probe(self, token_ids: list[list[int]], temperature: float, seed: int) -> ProbeResult:
        """Score each token in the states of ``probe_masks``, without a cache; the drawn token follows in one of them.

        Raises:
            EngineError: a token id is not in the vocabulary.
        """
        if any(not 0 <= token < self._model.vocabulary for ids in token_ids for token in ids):
            raise EngineError(f"a probe's token id is not one of the model's {self._model.vocabulary}")
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._probe, token_ids, temperature, seed)

    def _probe(self, token_ids: list[list[int]], temperature: float, seed: int) -> ProbeResult:
        result = ProbeResult(self.version)
        for index, plain in enumerate(token_ids):
            ids = np.append(probe_ids(plain, self._model.mask_token_id), np.int32(0))
            even, odd = probe_masks(len(ids))
            last, other = (odd, even) if odd[-1] else (even, odd)
            logits = self._state(ids, last)
            noise = [torch.Generator(self._model.device).manual_seed(seed + index)]
            heat = torch.tensor([temperature], dtype=torch.float64, device=self._model.device)
            token, logprob, _ = draw(logits[None, -1:], heat, noise, self._model.mask_token_id)
            ids[-1] = int(token)
            scores = np.where(last, self._scores(logits, ids), self._scores(self._state(ids, other), ids))
            result.fixed_logprobs.append(scores[1:-1].astype(np.float32))
            result.sampled_ids.append(int(token))
            result.sampled_logprobs.append(float(logprob))
        return result

    def _state(self, ids: np.ndarray[Any, Any], masked: np.ndarray[Any, Any]) -> Tensor:
        """(L, V) logits of all tokens, those where ``masked`` hidden."""
        seen = np.where(masked, self._model.mask_token_id, ids).astype(np.int64)
        logits = self._model.all_logits(torch.from_numpy(seen)[None].to(self._model.device))[0].double()
        logits[:, self._model.mask_token_id] = IMPOSSIBLE
        return logits

    def _scores(self, logits: Tensor, ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        tokens = torch.from_numpy(ids.astype(np.int64))[:, None].to(logits.device)
        scores: np.ndarray[Any, Any] = torch.log_softmax(logits, dim=-1).gather(1, tokens)[:, 0].cpu().numpy()
        return scores

    def expect(self, episodes: int) -> None:
        """Deterministic mode: so many episodes follow; a batch begins once each live one has a request here."""
        self._live = max(0, self._live + episodes)

    def episode_done(self) -> None:
        """Deterministic mode: one of them has ended."""
        self._live = max(0, self._live - 1)

    def stats(self) -> dict[str, float]:
        """Totals since the start: sampled tokens, forward passes, seconds of decoding; and requests waiting now."""
        return {
            "tokens": float(self._tokens),
            "passes": float(self._model.passes),
            "decode_s": self._seconds,
            "waiting": float(len(self._waiting)),
        }

    async def close(self) -> None:
        """Stop after the batch under way; requests that wait fail."""
        if self._pump is not None:
            self._pump.cancel()
        for waiting in self._waiting:
            if not waiting.answer.done():
                waiting.answer.set_exception(EngineError("the engine was closed"))
        self._waiting = []
