"""Sampling with a real vLLM engine: what comes back, how it ends, and what happens when it breaks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlpost.rollout.engine import EngineError, ProbeResult, Sample, SampleRequest
from tests.support.vllm_host import CONTEXT, STOP, VOCABULARY, engine_host, reference_logprobs, small_model, update_of

Run = Callable[..., Any]
PROMPT = [3, 14, 15, 92, 65]


async def fresh_weights(engine: Any) -> None:
    """Back to the weights the engine started with."""
    await engine.update_weights(update_of(small_model(), engine.version + 1))


async def sample(engine: Any, requests: list[SampleRequest]) -> list[Sample]:
    await fresh_weights(engine)
    return await asyncio.gather(*(engine.generate(request) for request in requests))


def test_greedy_takes_the_likeliest_token_and_says_its_probability(vllm: Run) -> None:
    model = small_model()
    [got] = vllm(sample, [SampleRequest("greedy", PROMPT, 12, temperature=0.0)])
    whole = PROMPT + got.token_ids.tolist()
    with torch.no_grad():
        logits = model(torch.tensor([whole])).logits[0]
    assert got.token_ids.tolist() == logits.argmax(-1)[len(PROMPT) - 1 : -1].tolist()
    np.testing.assert_allclose(got.logprobs, reference_logprobs(model, whole, 1.0)[len(PROMPT) - 1 :], atol=1e-4)


def test_samples_end_with_their_stop_token_or_their_budget(vllm: Run) -> None:
    requests = [SampleRequest(f"stop-{i}", PROMPT, 100, seed=i) for i in range(16)]
    samples = vllm(sample, requests)
    stopped = [one for one in samples if one.stopped]
    assert stopped
    for one in samples:
        assert one.token_ids.dtype == np.int32
        assert one.logprobs.dtype == np.float32
        assert len(one.token_ids) == len(one.logprobs) == len(one.versions)
        assert STOP not in one.token_ids[:-1]
        assert not one.aborted
        assert one.stopped == (one.token_ids[-1] == STOP)
        assert one.stopped or len(one.token_ids) == 100


def test_a_seed_repeats_the_sample(vllm: Run) -> None:
    seeds = (2**62 + 5, 2**62 + 5, 2**62 + 6)
    requests = [SampleRequest(f"seed-{i}", PROMPT, 20, seed=seed) for i, seed in enumerate(seeds)]
    first, second, other = (vllm(sample, [request])[0] for request in requests)
    np.testing.assert_array_equal(first.token_ids, second.token_ids)
    assert first.token_ids.tolist() != other.token_ids.tolist()


def test_a_request_may_say_itself_that_it_is_over(vllm: Run) -> None:
    asked = [
        SampleRequest("whole", PROMPT, 40, seed=3),
        SampleRequest("over at 16", PROMPT, 40, seed=3, logprobs=False, ends=_has_sixteen),
        SampleRequest("never over", PROMPT, 40, seed=3, ends=_never),
    ]
    whole, over, never = vllm(sample, asked)
    assert len(whole.token_ids) > 16
    assert (over.token_ids.tolist(), over.stopped, over.aborted) == (whole.token_ids[:16].tolist(), True, False)
    assert np.isnan(over.logprobs).all()
    assert never.token_ids.tolist() == whole.token_ids.tolist()
    np.testing.assert_array_equal(never.logprobs, whole.logprobs)


def _has_sixteen(token_ids: Sequence[int]) -> bool:
    return len(token_ids) >= 10  # asked at 8, 16, ...


def _never(token_ids: Sequence[int]) -> bool:
    return False


def test_the_context_is_the_limit_of_a_long_budget(vllm: Run) -> None:
    prompt = [11] * (CONTEXT - 3)
    [got] = vllm(sample, [SampleRequest("long", prompt, 50, temperature=0.0)])
    assert len(got.token_ids) == 3
    assert not got.stopped


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (SampleRequest("r", [], 4), "0 tokens"),
        (SampleRequest("r", [1] * CONTEXT, 4), f"{CONTEXT} tokens"),
        (SampleRequest("r", [1, VOCABULARY], 4), f"token id {VOCABULARY}"),
        (SampleRequest("r", [-1, 3], 4), "token id -1"),
        (SampleRequest("r", PROMPT, 0), "max_tokens is 0"),
        (SampleRequest("r", PROMPT, 4, temperature=0.001), "temperature 0.001"),
    ],
)
def test_a_request_that_cannot_be_sampled_is_refused_alone(vllm: Run, request_: SampleRequest, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        vllm(sample, [request_])
    assert len(vllm(sample, [SampleRequest("after", PROMPT, 2)])[0].token_ids) in (1, 2)


async def abort_running_waiting_and_unknown(engine: Any) -> list[Sample]:
    """Six requests for four slots; one that runs and one that waits are aborted, and one call is cancelled."""
    await fresh_weights(engine)
    calls = [
        asyncio.create_task(engine.generate(SampleRequest(f"abort-{i}", PROMPT, 200, order=i, seed=i + 1)))
        for i in range(6)
    ]
    start = engine.stats()["tokens"]
    while engine.stats()["tokens"] < start + 12:
        await asyncio.sleep(0.001)
    engine.abort("abort-0")
    engine.abort("abort-5")
    engine.abort("nobody")
    calls[1].cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[1], asyncio.CancelledError)
    await engine.generate(SampleRequest("abort-1", PROMPT, 1))  # the id is free again
    return [results[0], *results[2:]]


def test_abort_returns_what_was_sampled_so_far(vllm: Run) -> None:
    running, *others, waiting = vllm(abort_running_waiting_and_unknown)
    assert running.aborted
    assert 0 < len(running.token_ids) < 200
    assert waiting.aborted
    assert len(waiting.token_ids) == 0
    assert not any(one.aborted for one in others)


async def same_id_twice(engine: Any) -> list[Any]:
    calls = (engine.generate(SampleRequest("twin", PROMPT, 8)) for _ in range(2))
    return await asyncio.gather(*calls, return_exceptions=True)


def test_an_id_in_flight_cannot_be_used_again(vllm: Run) -> None:
    first, second = vllm(same_id_twice)
    assert isinstance(first, Sample)
    assert isinstance(second, EngineError)
    assert "twin" in str(second)


async def probe_among_running(engine: Any, probe: list[list[int]]) -> tuple[ProbeResult, float, int]:
    """A probe while all slots are taken and more requests wait."""
    await fresh_weights(engine)
    calls = [asyncio.create_task(engine.generate(SampleRequest(f"busy-{i}", PROMPT, 60))) for i in range(8)]
    while engine.stats()["running"] < 4:
        await asyncio.sleep(0.001)
    before = engine.stats()
    result = await engine.probe(probe, 0.7, 3)
    steps = engine.stats()["steps"] - before["steps"]
    unfinished = sum(not call.done() for call in calls)
    await asyncio.gather(*calls)
    return result, steps, unfinished


def test_a_probe_does_not_wait_for_the_requests_that_run(vllm: Run) -> None:
    probe = [[1, 2, 3, 4, 5], [7], list(range(40, 90))]
    result, steps, unfinished = vllm(probe_among_running, probe)
    assert unfinished >= 4
    assert steps <= 6
    model = small_model()
    for tokens, fixed, drawn, logprob in zip(
        probe, result.fixed_logprobs, result.sampled_ids, result.sampled_logprobs, strict=True
    ):
        assert fixed.dtype == np.float32
        np.testing.assert_allclose(fixed, reference_logprobs(model, tokens, 1.0), atol=1e-4)
        assert logprob == pytest.approx(reference_logprobs(model, [*tokens, drawn], 0.7)[-1], abs=1e-4)


async def shared_prefix(engine: Any) -> tuple[float, float]:
    """Cached and prompt tokens added by three turns of one conversation, and by a probe of the same tokens."""
    await fresh_weights(engine)
    before = engine.stats()
    for i, length in enumerate((70, 90, 110)):
        await engine.generate(SampleRequest(f"turn-{i}", [21] * length, 1))
    turns = engine.stats()
    await engine.probe([[21] * 90], 1.0, 0)
    name = "cached_tokens"
    return turns[name] - before[name], engine.stats()[name] - turns[name]


def test_turns_reuse_the_prefix_and_a_probe_does_not(vllm: Run) -> None:
    # Blocks of 32 tokens: the second turn finds two whole blocks of the first, the third finds two of the second.
    assert vllm(shared_prefix) == (64 + 64, 0)


class Breaking:
    """The real core, until its step number ``good`` is done."""

    def __init__(self, core: Any, good: int) -> None:
        self._core = core
        self._good = good

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def step(self) -> Any:
        if not self._good:
            raise RuntimeError("out of cheese")
        self._good -= 1
        return self._core.step()


async def break_a_loop(engine: Any) -> list[BaseException]:
    """A second loop on the idle engine's core; it dies with three requests in flight and is asked twice more."""
    from rlpost.rollout.vllm.loop import StepLoop

    loop = StepLoop(lambda: Breaking(engine._loop.core, 3), 2, [STOP], 4, lock_step=False)  # type: ignore[arg-type]
    requests = [SampleRequest(f"doomed-{i}", PROMPT, 50, temperature=0.0) for i in range(3)]
    futures = [asyncio.wrap_future(loop.generate(request)) for request in requests]
    errors: list[BaseException] = list(await asyncio.gather(*futures, return_exceptions=True))
    for call in (lambda: loop.generate(requests[0]), lambda: loop.probe([PROMPT], 1.0, 0)):
        try:
            call()
        except EngineError as error:
            errors.append(error)
    loop.abort("doomed-0")
    loop.announce(-1)
    loop.close()
    engine._loop.core.abort(list(loop._running))
    return errors


def test_a_dead_engine_fails_every_request_with_the_cause(vllm: Run) -> None:
    errors = vllm(break_a_loop)
    assert len(errors) == 5
    for error in errors:
        assert isinstance(error, EngineError)
        assert "died at weights version 4: RuntimeError: out of cheese" in str(error)


async def close_a_loop(engine: Any) -> BaseException:
    """Close a second loop on the same core with a request in flight."""
    from rlpost.rollout.vllm.loop import StepLoop

    core = Breaking(engine._loop.core, -1)
    core.close = lambda: None  # type: ignore[attr-defined]
    loop = StepLoop(lambda: core, 2, [STOP], 0, lock_step=True)  # type: ignore[arg-type]
    loop.announce(2)
    future = asyncio.wrap_future(loop.generate(SampleRequest("left", PROMPT, 5)))  # waits for a second episode
    await asyncio.to_thread(loop.close)
    [error] = await asyncio.gather(future, return_exceptions=True)
    assert isinstance(error, BaseException)
    return error


def test_closing_fails_what_is_in_flight(vllm: Run) -> None:
    error = vllm(close_a_loop)
    assert isinstance(error, EngineError)
    assert "closed" in str(error)


async def sleep_while_one_runs(engine: Any) -> tuple[Sample, Sample]:
    await fresh_weights(engine)
    running = asyncio.create_task(engine.generate(SampleRequest("sleep-0", PROMPT, 200, seed=1)))
    start = engine.stats()["tokens"]
    while engine.stats()["tokens"] < start + 3:
        await asyncio.sleep(0.001)
    await engine.sleep()
    aborted = await running
    await fresh_weights(engine)
    return aborted, await engine.generate(SampleRequest("sleep-1", PROMPT, 4))


def test_an_engine_that_slept_goes_on_after_the_next_update(vllm: Run) -> None:
    aborted, after = vllm(sleep_while_one_runs)
    assert aborted.aborted
    assert 0 < len(aborted.token_ids) < 200
    assert not after.aborted
    assert len(after.token_ids) in (1, 2, 3, 4)


class Counting:
    """Stands in for a core whose request i ends after its number of tokens; it counts who came before each step."""

    vocabulary = VOCABULARY

    def __init__(self, waits_for_bursts: bool = False) -> None:
        self.waits_for_bursts = waits_for_bursts
        self.let_in: list[int] = []
        self._left: dict[str, int] = {}
        self._new = 0

    def add(self, request_id: str, token_ids: list[int], max_tokens: int, *_: Any, **__: Any) -> None:
        self._left[request_id] = max_tokens
        self._new += 1

    def step(self) -> list[Any]:
        from vllm.v1.engine import EngineCoreOutput, FinishReason

        self.let_in.append(self._new)
        self._new = 0
        self._left = {name: left - 1 for name, left in self._left.items()}
        ended = {name: FinishReason.LENGTH for name, left in self._left.items() if left == 0}
        outputs = [
            EngineCoreOutput(request_id=name, new_token_ids=[5], finish_reason=ended.get(name)) for name in self._left
        ]
        self._left = {name: left for name, left in self._left.items() if left}
        return outputs

    def close(self) -> None:
        pass


async def admissions(engine: Any, tokens: list[int], slots: int, lock_step: bool) -> list[int]:
    """How many requests were let in before each step."""
    from rlpost.rollout.vllm.loop import StepLoop

    core = Counting()
    loop = StepLoop(lambda: core, slots, [STOP], 0, lock_step)  # type: ignore[arg-type, return-value]
    requests = [SampleRequest(f"r{i}", PROMPT, count, order=i, logprobs=False) for i, count in enumerate(tokens)]
    held = threading.Event()
    loop._post(held.wait)  # all of them are there before the first step
    calls = [asyncio.wrap_future(loop.generate(request)) for request in requests]
    held.set()
    await asyncio.gather(*calls)
    loop.close()
    return core.let_in


def test_requests_that_end_one_by_one_are_followed_by_several_at_once(vllm: Run) -> None:
    spread = [100 + i for i in range(64)]  # the first 64 end one a step
    found = vllm(admissions, [*spread, *[300] * 64], 64, False)
    assert found[0] == 64
    later = [count for count in found[1:] if count]
    assert sum(later) == 64
    assert min(later[:-1]) >= 3  # a sixteenth of those that run; the last are what is left over
    each = [count for count in vllm(admissions, [*spread, *[300] * 64], 64, True)[1:] if count]
    assert each == [1] * 64


def test_a_request_does_not_wait_long_for_others(vllm: Run) -> None:
    found = vllm(admissions, [10, *[200] * 64], 64, False)
    [late] = [step for step, count in enumerate(found) if step and count]
    assert found[late] == 1
    assert 10 <= late <= 10 + 8


async def burst(engine: Any, count: int, slots: int) -> list[int]:
    """Admissions before each step where ``count`` requests come one after another to an idle engine of a GPU's kind."""
    from rlpost.rollout.vllm import loop as module

    normal, core = (module.BURST_S, module.LONGEST_BURST_S), Counting(waits_for_bursts=True)
    module.BURST_S, module.LONGEST_BURST_S = 0.5, 30.0  # however slow this machine is
    try:
        loop = module.StepLoop(lambda: core, slots, [STOP], 0, False)  # type: ignore[arg-type, return-value]
        calls = []
        for index in range(count):
            request = SampleRequest(f"b{index}", PROMPT, 5, order=index, logprobs=False)
            calls.append(asyncio.wrap_future(loop.generate(request)))
            await asyncio.sleep(0.01)
        await asyncio.gather(*calls)
        loop.close()
    finally:
        module.BURST_S, module.LONGEST_BURST_S = normal
    return core.let_in


@pytest.mark.parametrize(("count", "first"), [(12, 8), (3, 3)])
def test_an_idle_engine_of_a_gpu_begins_with_a_whole_burst(vllm: Run, count: int, first: int) -> None:
    found = vllm(burst, count, 8)
    assert found[0] == first
    assert sum(found) == count


async def without_scores(engine: Any, requests: list[SampleRequest]) -> tuple[list[Sample], list[BaseException]]:
    samples = await asyncio.gather(*(engine.generate(request) for request in requests))
    asked = (engine.generate(SampleRequest("scored", PROMPT, 3)), engine.probe([PROMPT], 1.0, 0))
    return samples, [one for one in await asyncio.gather(*asked, return_exceptions=True) if one is not None]


@pytest.mark.slow
def test_an_engine_without_scores_samples_the_same_and_refuses_to_score(vllm: Run, vllm_folder: Path) -> None:
    heats = (1.0, 0.7, 0.0)
    requests = [SampleRequest(f"u{i}", PROMPT, 20, heat, seed=i, logprobs=False) for i, heat in enumerate(heats)]
    expected = vllm(sample, requests)
    with engine_host(vllm_folder, seeded=True, scored=False) as run:
        samples, errors = run(without_scores, requests)
    for one, other in zip(samples, expected, strict=True):
        np.testing.assert_array_equal(one.token_ids, other.token_ids)
        assert np.isnan(one.logprobs).all()
    assert len(errors) == 2
    for error in errors:
        assert isinstance(error, EngineError)
        assert "scored=False" in str(error)
