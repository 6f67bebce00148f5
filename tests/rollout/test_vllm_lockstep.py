"""Deterministic sampling: the batch of every engine step is the same in two runs, whatever environments do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from rlpost.rollout.engine import Sample, SampleRequest
from tests.support.vllm_host import small_model, update_of

Run = Callable[..., Any]
EPISODES = 7
TURNS = 3


async def play_episodes(engine: Any, sleep_seed: int, lock_step: bool) -> tuple[dict[int, list[Sample]], float]:
    """Seven episodes of one to three turns for four slots; each sleeps at random before every turn.

    Returns the samples by episode, and the number of engine steps they took.
    """
    await engine.update_weights(update_of(small_model(), engine.version + 1))  # the prefix cache starts empty
    draw = np.random.default_rng(sleep_seed)
    naps = draw.uniform(0, 0.03, (EPISODES, TURNS))
    samples: dict[int, list[Sample]] = {number: [] for number in range(EPISODES)}
    before = engine.stats()["steps"]

    async def episode(number: int) -> None:
        context = [40 + number, 7, 8]
        for turn in range(1 + number % TURNS):
            await asyncio.sleep(naps[number, turn])
            name = f"{sleep_seed}-{number}-{turn}"
            seed = number * TURNS + turn
            request = SampleRequest(name, list(context), 5 + 3 * number, seed=seed, order=number)
            samples[number].append(await engine.generate(request))
            context += [*samples[number][-1].token_ids.tolist(), 33, 34]
        engine.episode_done()

    if lock_step:
        engine.expect(EPISODES)
    await asyncio.gather(*(episode(int(number)) for number in draw.permutation(EPISODES)))
    return samples, engine.stats()["steps"] - before


def test_two_runs_are_the_same_bit_for_bit(vllm: Run) -> None:
    first, steps = vllm(play_episodes, 1, True)
    for sleep_seed in (2, 3):
        again, steps_again = vllm(play_episodes, sleep_seed, True)
        assert steps_again == steps
        for number in range(EPISODES):
            for one, other in zip(first[number], again[number], strict=True):
                np.testing.assert_array_equal(one.token_ids, other.token_ids)
                assert one.logprobs.tobytes() == other.logprobs.tobytes()


async def wait_for_all(engine: Any) -> list[bool]:
    """Two episodes are announced and one asks: whether its sample is done early, after the other ended, and now."""
    engine.expect(2)
    call = asyncio.create_task(engine.generate(SampleRequest("alone", [5, 6], 4)))
    await asyncio.sleep(0.3)
    early = call.done()
    engine.episode_done()
    await asyncio.wait_for(call, 10)
    engine.episode_done()
    free = await asyncio.wait_for(engine.generate(SampleRequest("free", [5, 6], 4)), 10)
    return [early, call.done(), len(free.token_ids) > 0]


def test_the_engine_waits_for_every_live_episode_and_no_longer(vllm: Run) -> None:
    assert vllm(wait_for_all) == [False, True, True]
