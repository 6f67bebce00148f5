"""A scripted engine for tests of the episode driver: it samples ids from a seeded generator, as any engine might.

It keeps the protocol of rollout/engine.py in full, and remembers every request and sample, so that a test can hold the
trajectory against what really crossed. Left out: a model.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlpost.rollout.digest import Held
from rlpost.rollout.engine import EngineError, ProbeResult, Sample, SampleRequest
from rlpost.rollout.weight_update import WeightUpdate


class ScriptedEngine:
    """Answers requests with ``script(request) -> Sample``, after letting other tasks run."""

    def __init__(self, script: Callable[[SampleRequest], Sample]) -> None:
        self.script = script
        self.crossed: list[tuple[SampleRequest, Sample]] = []
        self.aborted: set[str] = set()
        self.held: asyncio.Event | None = None
        self.version = 0

    async def generate(self, request: SampleRequest) -> Sample:
        while self.held is not None and not self.held.is_set() and request.id not in self.aborted:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        sample = self.script(request)
        if request.id in self.aborted:
            sample = Sample(sample.token_ids, sample.logprobs, sample.versions, stopped=False, aborted=True)
        self.crossed.append((request, sample))
        return sample

    def abort(self, request_id: str) -> None:
        self.aborted.add(request_id)

    async def update_weights(self, update: WeightUpdate) -> list[Held]:
        self.version = update.version
        return []

    async def probe(self, token_ids: list[list[int]], temperature: float, seed: int) -> ProbeResult:
        return ProbeResult(self.version, [np.zeros(len(ids) - 1, dtype=np.float32) for ids in token_ids])

    async def close(self) -> None:
        self.version = -1


def sample_of(token_ids: Sequence[int], stopped: bool = True, version: int = 0) -> Sample:
    """A sample of these ids; the log-probability of the i-th is -(i + 1) / 8, so that each can be told apart."""
    count = len(token_ids)
    return Sample(
        token_ids=np.array(token_ids, dtype=np.int32),
        logprobs=-np.arange(1, count + 1, dtype=np.float32) / 8,
        versions=np.full(count, version, dtype=np.int32),
        stopped=stopped,
    )


def random_sampler(
    vocabulary: int, stop_token_ids: Sequence[int], version: int = 0
) -> Callable[[SampleRequest], Sample]:
    """Uniform ids of the whole vocabulary, special tokens included, from the request's own seed, until a stop token or
    ``max_tokens``."""

    def script(request: SampleRequest) -> Sample:
        rng = np.random.default_rng(request.seed)
        ids = rng.integers(0, vocabulary, size=request.max_tokens).tolist()
        if rng.random() < 0.7:
            ids[int(rng.integers(len(ids)))] = int(rng.choice(stop_token_ids))
        stops = [position for position, token in enumerate(ids) if token in stop_token_ids]
        ids = ids[: stops[0] + 1] if stops else ids
        return sample_of(ids, bool(stops), version)

    return script


class LockStepScriptedEngine(ScriptedEngine):
    """Also notes what it is told of a step's episodes, as an engine for deterministic runs wants to be."""

    def __init__(self, script: Callable[[SampleRequest], Sample]) -> None:
        super().__init__(script)
        self.told: list[str] = []

    def expect(self, episodes: int) -> None:
        self.told.append(f"expect {episodes}")

    def episode_done(self) -> None:
        self.told.append("done")

    def stats(self) -> dict[str, float]:
        return {"requests": float(len(self.crossed))}


def build(stop_token_ids: list[int], vocabulary: int = 259, lock_step: bool = False, **_: Any) -> ScriptedEngine:
    """What a worker's setup names as its engine."""
    script = random_sampler(vocabulary, stop_token_ids)
    return LockStepScriptedEngine(script) if lock_step else ScriptedEngine(script)


def says(model: str, text: str, stop_token_ids: list[int], **_: Any) -> ScriptedEngine:
    """Always the same, and goes on as long as it may."""
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(model)(text, add_special_tokens=False)["input_ids"]
    return ScriptedEngine(lambda request: sample_of(ids[: request.max_tokens], stopped=False))


def _sums(model: str, answer: Callable[[int, SampleRequest], str], stop_token_ids: list[int]) -> ScriptedEngine:
    """Answers the last ``a+b=`` of its context in the model's own tokens, then stops where there is room."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)

    def script(request: SampleRequest) -> Sample:
        a, b = re.findall(r"(\d)\+(\d)=", tokenizer.decode(request.token_ids))[-1]
        ids = tokenizer(answer(int(a) + int(b), request), add_special_tokens=False)["input_ids"]
        return sample_of([*ids, stop_token_ids[0]][: request.max_tokens], len(ids) < request.max_tokens)

    return ScriptedEngine(script)


def knowing(model: str, stop_token_ids: list[int], **_: Any) -> ScriptedEngine:
    """Adds, and is off by one where the request's seed is divisible by three."""
    return _sums(model, lambda total, request: str(total + ((request.seed or 0) % 3 == 0)), stop_token_ids)


def always_right(model: str, stop_token_ids: list[int], **_: Any) -> ScriptedEngine:
    """Adds."""
    return _sums(model, lambda total, request: str(total), stop_token_ids)


def going_on(model: str, stop_token_ids: list[int], **_: Any) -> ScriptedEngine:
    """Adds, and then asks itself further questions, as a base model does."""
    return _sums(model, lambda total, request: f"{total}\nQ: 1+1=?\nA: 2\nQ: " * 9, stop_token_ids)


def failing(model: str, stop_token_ids: list[int], **_: Any) -> ScriptedEngine:
    """Cannot add at all."""

    def fail(total: int, request: SampleRequest) -> str:
        raise EngineError(f"the engine cannot add up to {total}")

    return _sums(model, fail, stop_token_ids)


def failing_on_one_sum(model: str, stop_token_ids: list[int], **_: Any) -> ScriptedEngine:
    """Cannot add 2+2, the only sum here whose prompt says so."""
    inner = always_right(model, stop_token_ids)
    from transformers import AutoTokenizer

    tokenizer, script = AutoTokenizer.from_pretrained(model), inner.script

    def fail_on_one(request: SampleRequest) -> Sample:
        if "2+2=" in tokenizer.decode(request.token_ids):
            raise EngineError("the engine cannot add 2+2")
        return script(request)

    inner.script = fail_on_one
    return inner
