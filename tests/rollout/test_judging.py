"""Answers that never end: each is worth nothing, and none costs its episode, however many wait to be judged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import ClassVar

import pytest

from rlpost.envs.base import Message, Observation, Score
from rlpost.envs.one_answer import OneAnswer
from rlpost.reward import sandbox
from rlpost.reward.clock import Clock, off_the_clock
from rlpost.reward.sandbox import Limits, Reason, SandboxError
from rlpost.rollout.env_session import EnvFactory
from rlpost.rollout.env_threads import EnvThreads
from rlpost.rollout.episode import play
from rlpost.rollout.specs import REWARD_ERROR
from rlpost.rollout.trajectory import StopReason, Trajectory
from tests.rollout.test_episode import CHAT, _answer, _config, _play, _spec
from tests.support.engines import ScriptedEngine

isolated = pytest.mark.skipif(sandbox.isolation() is None, reason=sandbox.isolation_problem())


class Judged(OneAnswer):
    """The answer is a program, worth 1 where it ends."""

    blocking: ClassVar[frozenset[str]] = frozenset({"score"})

    def start(self) -> Sequence[Message]:
        return [Message(role="user", content="a program")]

    def step(self, text: str) -> Observation:
        self.answer = text
        return Observation("", done=True)

    def score(self) -> Score:
        outcome = sandbox.run(self.answer, Limits(wall_s=0.4, cpu_s=5))
        return Score(float(outcome.ok), {"timeout": float(outcome.reason is Reason.TIMEOUT)})


@isolated
@pytest.mark.parametrize("count", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_endless_answers_are_worth_nothing_and_cost_no_episode(count: int) -> None:
    sandbox.run("pass")
    engine = ScriptedEngine(lambda request: _answer("while True: pass"))
    factory, config = EnvFactory(Judged), _config(deadline_s=0.2)

    async def all_of_them() -> list[Trajectory]:
        threads = EnvThreads()
        return await asyncio.gather(
            *(play(factory, engine, CHAT, config, _spec(seed), threads) for seed in range(count))
        )

    played = asyncio.run(all_of_them())
    assert [(t.reward, t.stop, t.reward_parts["timeout"]) for t in played] == [(0.0, StopReason.DONE, 1.0)] * count


class _Lost(Judged):
    def score(self) -> Score:
        raise SandboxError("the sandbox's keeper died")


class _Slow(Judged):
    def score(self) -> Score:
        with off_the_clock():
            time.sleep(0.4)
        time.sleep(0.4)
        return Score(1.0)


def test_a_sandbox_that_fails_costs_its_episode_and_is_no_fault_of_the_reward() -> None:
    trajectory = _play(_Lost, ScriptedEngine(lambda request: _answer("x")), _spec(3))
    assert trajectory.stop is StopReason.ENV_FAILED
    assert trajectory.failed
    assert not trajectory.error.startswith(REWARD_ERROR)


@pytest.mark.parametrize(("deadline_s", "stop"), [(0.6, StopReason.DONE), (0.2, StopReason.ENV_TIMEOUT)])
def test_only_what_is_not_judging_counts_against_the_deadline(deadline_s: float, stop: StopReason) -> None:
    engine = ScriptedEngine(lambda request: _answer("x"))
    assert _play(_Slow, engine, _spec(3), _config(deadline_s=deadline_s)).stop is stop


def test_a_clock_stands_still_while_anybody_stops_it() -> None:
    clock = Clock()
    with clock.stop(), clock.stop():
        time.sleep(0.1)
        assert clock.stopped
        assert clock.counted_s < 0.05
    assert not clock.stopped
    assert clock.counted_s < 0.05
    time.sleep(0.1)
    assert 0.1 <= clock.counted_s < 0.2
