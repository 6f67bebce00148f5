"""The episode driver: what is recorded is what was sampled, and a fault costs one episode and nothing else."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rlpost.envs.base import Env, Task
from rlpost.reward.score import RewardError, Score
from rlpost.rollout.chat import TemplateFormat
from rlpost.rollout.config import RolloutConfig
from rlpost.rollout.engine import EngineError, Sample, SampleRequest
from rlpost.rollout.env_session import EnvFactory
from rlpost.rollout.env_threads import EnvThreads
from rlpost.rollout.episode import EpisodeControl, play, turn_seed
from rlpost.rollout.specs import REWARD_ERROR, EpisodeSpec, summarize
from rlpost.rollout.trajectory import StopReason, Trajectory
from tests.support.engines import ScriptedEngine, random_sampler, sample_of
from tests.support.tokenizers import byte_tokenizer
from tests.support.worlds import AsyncBroken, AsyncChatter, Broken, Chatter, QuickChatter, Slow

TOKENIZER = byte_tokenizer()
CHAT = TemplateFormat(TOKENIZER, observation_tokens=60)
END = TOKENIZER.eos_token_id
QUICK = 0.2


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    Chatter.closed.clear()
    AsyncChatter.threads.clear()
    Broken.release.clear()
    yield
    Broken.release.set()


def _spec(seed: int = 0, temperature: float = 1.0, greedy: bool = False, **data: Any) -> EpisodeSpec:
    task = Task(f"task-{seed}", data, scenario="talk", difficulty=2, source="tests")
    return EpisodeSpec(task, group_id=seed // 8, index=seed % 8, seed=seed, temperature=temperature, greedy=greedy)


def _config(**values: Any) -> RolloutConfig:
    return RolloutConfig(**({"max_turns": 4, "max_new_tokens": 40, "max_context": 400} | values))


def _answer(text: str, stopped: bool = True) -> Sample:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return sample_of([*ids, END] if stopped else ids, stopped)


def _play(
    env_class: type[Env], engine: ScriptedEngine, spec: EpisodeSpec, config: RolloutConfig | None = None, **options: Any
) -> Trajectory:
    factory = EnvFactory(env_class, options)
    return asyncio.run(play(factory, engine, CHAT, config or _config(), spec, EnvThreads()))


def _hold_against_what_crossed(trajectory: Trajectory, crossed: list[tuple[SampleRequest, Sample]]) -> None:
    """Every turn is the engine's sample, every context the tape before it, and nothing else is policy."""
    ids = trajectory.token_ids.tolist()
    policy = np.zeros(len(ids), dtype=bool)
    assert len(trajectory.turns) == len(crossed)
    for turn, (request, sample) in zip(trajectory.turns, crossed, strict=True):
        span = slice(turn.start, turn.end)
        assert ids[: turn.start] == request.token_ids
        assert ids[span] == sample.token_ids.tolist()
        np.testing.assert_array_equal(trajectory.rollout_logprobs[span], sample.logprobs)
        np.testing.assert_array_equal(trajectory.versions[span], sample.versions)
        assert turn.truncated is not sample.stopped
        assert turn.end - turn.start <= request.max_tokens
        policy[span] = True
    np.testing.assert_array_equal(trajectory.policy_mask, policy)
    assert np.isnan(trajectory.rollout_logprobs[~policy]).all()
    assert (trajectory.versions[~policy] == -1).all()


def test_a_thousand_random_episodes_record_what_was_sampled() -> None:
    config = _config(max_turns=5, max_new_tokens=24, max_context=330)
    engine = ScriptedEngine(random_sampler(len(TOKENIZER), CHAT.stop_token_ids, version=7))
    factory = EnvFactory(AsyncChatter, {"turns": 4, "words": 9})

    async def all_of_them() -> list[Trajectory]:
        threads = EnvThreads()
        return await asyncio.gather(
            *(play(factory, engine, CHAT, config, _spec(seed), threads) for seed in range(1000))
        )

    trajectories = asyncio.run(all_of_them())
    by_opening: dict[str, list[tuple[SampleRequest, Sample]]] = {}
    for request, sample in engine.crossed:
        by_opening.setdefault(request.id.partition(":")[2].rpartition(",")[0], []).append((request, sample))
    for trajectory in trajectories:
        crossed = by_opening[f"group {trajectory.group_id}, episode {trajectory.index}"]
        _hold_against_what_crossed(trajectory, crossed)
        assert len(trajectory) <= config.max_context
        assert trajectory.usable
    seen = {trajectory.stop for trajectory in trajectories}
    assert seen == {StopReason.DONE, StopReason.TOKEN_LIMIT}
    specials = sum(int((t.token_ids[t.policy_mask] >= 256).sum()) for t in trajectories)
    assert specials > 1000


def test_arrays_have_the_types_the_record_promises() -> None:
    trajectory = _play(Chatter, ScriptedEngine(lambda request: _answer("hi")), _spec(3))
    assert (trajectory.token_ids.dtype, trajectory.policy_mask.dtype) == (np.int32, np.bool_)
    assert (trajectory.rollout_logprobs.dtype, trajectory.versions.dtype) == (np.float32, np.int32)


def test_a_whole_episode_by_hand() -> None:
    engine = ScriptedEngine(lambda request: _answer("hi"))
    trajectory = _play(Chatter, engine, _spec(3), turns=2, words=1)
    prompt = "<|im_start|>system\nChat.<|im_end|>\n<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"
    between = "\n<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"
    assert TOKENIZER.decode(trajectory.token_ids) == prompt + "hi<|im_end|>" + between + "hi<|im_end|>"
    assert TOKENIZER.decode(trajectory.token_ids[trajectory.policy_mask]) == "hi<|im_end|>" * 2
    assert (trajectory.reward, trajectory.reward_parts, trajectory.success) == (2.0, {"texts": 2.0}, True)
    assert (trajectory.stop, trajectory.metrics, trajectory.error) == (StopReason.DONE, {"characters": 4.0}, "")
    assert (trajectory.scenario, trajectory.difficulty, trajectory.source) == ("talk", 2, "tests")
    assert Chatter.closed == ["task-3"]
    summary = summarize(trajectory, worker=1)
    assert (summary.turns, summary.policy_tokens, summary.version_min, summary.version_max) == (2, 6, 0, 0)


def test_a_truncated_turn_is_closed_for_the_model() -> None:
    engine = ScriptedEngine(lambda request: _answer("hi", stopped=False))
    trajectory = _play(Chatter, engine, _spec(3), turns=2, words=1)
    assert "assistant\nhi<|im_end|>\n<|im_start|>user\n" in TOKENIZER.decode(trajectory.token_ids)
    assert TOKENIZER.decode(trajectory.token_ids[trajectory.policy_mask]) == "hihi"
    assert trajectory.stop is StopReason.TOKEN_LIMIT
    assert [turn.truncated for turn in trajectory.turns] == [True, True]


def test_the_turn_limit_still_scores() -> None:
    engine = ScriptedEngine(lambda request: _answer("hi"))
    trajectory = _play(Chatter, engine, _spec(3), _config(max_turns=2), turns=9)
    assert (trajectory.stop, trajectory.reward, len(trajectory.turns)) == (StopReason.TURN_LIMIT, 2.0, 2)


def test_the_turn_budget_shrinks_at_the_context_limit_and_the_episode_still_scores() -> None:
    config = _config(max_turns=9, max_new_tokens=100, max_context=250)
    engine = ScriptedEngine(lambda request: sample_of([65] * request.max_tokens, stopped=False))
    trajectory = _play(Chatter, engine, _spec(3), config, turns=9, words=1)
    assert engine.crossed[0][0].max_tokens == 100
    assert engine.crossed[-1][0].max_tokens < 100
    assert len(trajectory) == 250
    assert (trajectory.stop, trajectory.reward) == (StopReason.TOKEN_LIMIT, float(len(trajectory.turns)))


def test_an_observation_that_leaves_no_room_is_not_appended() -> None:
    # By hand: the opening is 34 tokens, "hi" and its stop token 3, an empty observation with its template 20.
    for context, turns, tokens in ((57, 1, 37), (58, 2, 58)):
        engine = ScriptedEngine(lambda request: _answer("hi") if request.max_tokens > 1 else _answer("h", False))
        trajectory = _play(
            Chatter, engine, _spec(3), _config(max_turns=9, max_new_tokens=20, max_context=context), turns=9, words=1
        )
        assert trajectory.stop is StopReason.TOKEN_LIMIT
        assert trajectory.policy_mask[-1]
        assert (trajectory.reward, len(trajectory)) == (float(turns), tokens)


def test_an_opening_beyond_the_context_is_a_fault_in_words() -> None:
    config = _config(max_new_tokens=10, max_context=34)
    trajectory = _play(Chatter, ScriptedEngine(lambda request: _answer("hi")), _spec(3), config)
    assert trajectory.stop is StopReason.ENV_FAILED
    assert "'task-3'" in trajectory.error
    assert "rollout.max_context is 34" in trajectory.error


def test_every_turn_has_a_seed_of_its_own_and_greedy_has_no_temperature() -> None:
    engine = ScriptedEngine(lambda request: _answer("hi"))
    _play(Chatter, engine, _spec(3, temperature=0.7), turns=2)
    _play(Chatter, engine, _spec(4, greedy=True), turns=2)
    requests = [request for request, _ in engine.crossed]
    assert [r.seed for r in requests] == [turn_seed(3, 0), turn_seed(3, 1), turn_seed(4, 0), turn_seed(4, 1)]
    assert len({r.seed for r in requests}) == len({r.id for r in requests}) == 4
    assert all(r.seed is not None and 0 <= r.seed < 2**63 for r in requests)
    assert [r.temperature for r in requests] == [0.7, 0.7, 0.0, 0.0]


@pytest.mark.parametrize("where", ["__init__", "start", "step", "score", "metrics"])
@pytest.mark.parametrize(
    ("how", "stop", "words"),
    [
        ("raise", StopReason.ENV_FAILED, "raised KeyError: 'lost'"),
        ("exit", StopReason.ENV_FAILED, "raised SystemExit: 3"),
        ("hang", StopReason.ENV_TIMEOUT, "took longer than 0.2 s (rollout.deadline_s"),
    ],
)
def test_a_broken_environment_loses_its_episode(where: str, how: str, stop: StopReason, words: str) -> None:
    engine = ScriptedEngine(lambda request: _answer("hi"))
    trajectory = _play(Broken, engine, _spec(3, where=where, how=how), _config(deadline_s=QUICK))
    assert trajectory.stop is stop
    assert trajectory.error.startswith(f"Broken.{where} of task 'task-3' {words}")
    assert np.isnan(trajectory.reward)
    assert trajectory.failed
    assert Chatter.closed == ([] if where == "__init__" else ["task-3"])
    if how == "raise":
        assert "worlds.py:" in trajectory.error


@pytest.mark.parametrize(("where", "wanted"), [("start", "list"), ("step", "Observation"), ("metrics", "dict")])
def test_a_wrong_return_value_is_named(where: str, wanted: str) -> None:
    engine = ScriptedEngine(lambda request: _answer("hi"))
    trajectory = _play(Broken, engine, _spec(3, where=where, how="nonsense"))
    assert trajectory.stop is StopReason.ENV_FAILED
    assert f"Broken.{where} of task 'task-3' returned 17 instead of" in trajectory.error
    assert wanted in trajectory.error


@pytest.mark.parametrize(("how", "words"), [("nan", "the reward is nan"), ("nonsense", "returned 17 instead of")])
def test_a_reward_bug_is_marked(how: str, words: str) -> None:
    engine = ScriptedEngine(lambda request: _answer("hi"))
    trajectory = _play(Broken, engine, _spec(3, where="score", how=how))
    assert trajectory.error.startswith(REWARD_ERROR + "Broken.score of task 'task-3'")
    assert words in trajectory.error
    assert summarize(trajectory).reward_bug


class _Grumpy(Chatter):
    def step(self, text: str) -> Any:
        raise RewardError("cannot judge this")


class _Objects(Chatter):
    def score(self) -> Score:
        return Score(np.float32(0.5), {"a": np.int64(2)}, np.bool_(True))  # type: ignore[dict-item, arg-type]


class _Worded(Chatter):
    def score(self) -> Score:
        return Score(0.5, {"a": "high"})  # type: ignore[dict-item]


def test_rewards_become_plain_numbers_or_a_marked_error() -> None:
    engine = ScriptedEngine(lambda request: _answer("hi"))
    plain = _play(_Objects, engine, _spec(3))
    assert (type(plain.reward), type(plain.reward_parts["a"]), plain.success) == (float, float, True)
    assert "reward: _Worded.score of task 'task-3': returned Score" in _play(_Worded, engine, _spec(3)).error
    assert _play(_Grumpy, engine, _spec(3)).error == "reward: _Grumpy.step of task 'task-3': cannot judge this"


def test_a_fault_in_close_costs_nothing_but_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    engine = ScriptedEngine(lambda request: _answer("hi"))
    for how in ("raise", "hang"):
        trajectory = _play(Broken, engine, _spec(3, where="close", how=how), _config(deadline_s=QUICK))
        assert (trajectory.stop, trajectory.reward) == (StopReason.DONE, 3.0)
    assert "Broken.close of task 'task-3' raised KeyError" in caplog.text
    assert "Broken.close of task 'task-3' took longer" in caplog.text


def test_abandoned_threads_are_counted_until_they_return() -> None:
    engine = ScriptedEngine(lambda request: _answer("hi"))

    async def scenario() -> tuple[int, int]:
        threads = EnvThreads()
        spec = _spec(3, where="step", how="hang")
        await play(EnvFactory(Broken), engine, CHAT, _config(deadline_s=QUICK), spec, threads)
        hung = threads.abandoned
        Broken.release.set()
        for _ in range(500):
            if not threads.abandoned:
                break
            await asyncio.sleep(0.01)
        return hung, threads.abandoned

    assert asyncio.run(scenario()) == (1, 0)


def test_an_environment_that_was_built_too_late_is_closed() -> None:
    engine = ScriptedEngine(lambda request: _answer("hi"))
    config = _config(deadline_s=QUICK)

    async def scenario() -> Trajectory:
        trajectory = await play(EnvFactory(Slow), engine, CHAT, config, _spec(3, seconds=0.5), EnvThreads())
        for _ in range(500):
            if Chatter.closed:
                break
            await asyncio.sleep(0.01)
        return trajectory

    assert asyncio.run(scenario()).stop is StopReason.ENV_TIMEOUT
    assert Chatter.closed == ["task-3"]


def test_async_environments_run_on_the_loop_and_fail_alike() -> None:
    engine = ScriptedEngine(lambda request: _answer("hi"))
    trajectory = _play(AsyncChatter, engine, _spec(3))
    assert trajectory.reward == 3.0
    assert AsyncChatter.threads == {threading.current_thread().name}
    for how, stop in (("raise", "env_failed"), ("exit", "env_failed"), ("hang", "env_timeout")):
        trajectory = _play(AsyncBroken, engine, _spec(3, how=how), _config(deadline_s=QUICK))
        assert trajectory.stop == stop
        assert Chatter.closed.pop() == "task-3"


def test_environments_that_never_block_run_on_the_loop_and_fail_alike() -> None:
    engine = ScriptedEngine(lambda request: _answer("hi"))
    assert _play(QuickChatter, engine, _spec(3)).reward == 3.0
    assert QuickChatter.threads == {threading.current_thread().name}
    failed = _play(QuickChatter, engine, _spec(3, how="raise"))
    assert failed.error.startswith("QuickChatter.step of task 'task-3' raised KeyError: 'lost'")
    assert Chatter.closed == ["task-3"] * 2


def test_an_environment_stays_on_one_thread() -> None:
    seen: dict[int, set[int]] = {}

    class Watched(Chatter):
        def __init__(self, task: Task, seed: int) -> None:
            super().__init__(task, seed)
            seen[seed] = {threading.get_ident()}

        def step(self, text: str) -> Any:
            seen[self.seed].add(threading.get_ident())
            return super().step(text)

        def close(self) -> None:
            seen[self.seed].add(threading.get_ident())

    engine = ScriptedEngine(lambda request: _answer("hi"))

    async def several() -> None:
        threads = EnvThreads()
        await asyncio.gather(
            *(play(EnvFactory(Watched), engine, CHAT, _config(), _spec(seed), threads) for seed in range(20))
        )

    asyncio.run(several())
    assert [len(idents) for idents in seen.values()] == [1] * 20
    assert threading.get_ident() not in set.union(*seen.values())


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (Sample(np.array([5], np.int32), np.array([np.nan], np.float32), np.array([0], np.int32), True), "span nan"),
        (Sample(np.array([5], np.int32), np.array([-np.inf], np.float32), np.array([0], np.int32), True), "span -inf"),
        (Sample(np.array([5], np.int32), np.array([], np.float32), np.array([0], np.int32), True), "0 log-probs"),
        (sample_of([]), "no token"),
    ],
)
def test_an_inconsistent_sample_is_the_engines_fault(sample: Sample, words: str) -> None:
    trajectory = _play(Chatter, ScriptedEngine(lambda request: sample), _spec(3))
    assert trajectory.stop is StopReason.ENGINE_FAILED
    assert words in trajectory.error
    assert Chatter.closed == ["task-3"]


@pytest.mark.parametrize("error", [EngineError("the engine died"), RuntimeError("the engine died")])
def test_an_engine_that_raises_fails_the_episode(error: Exception) -> None:
    def script(request: SampleRequest) -> Sample:
        raise error

    trajectory = _play(Chatter, ScriptedEngine(script), _spec(3))
    assert trajectory.stop is StopReason.ENGINE_FAILED
    assert "the engine died" in trajectory.error


def test_cancelling_ends_an_episode_in_the_engine() -> None:
    async def scenario() -> Trajectory:
        engine = ScriptedEngine(lambda request: _answer("hi"))
        engine.held = asyncio.Event()
        spec = _spec(3)
        control = EpisodeControl(spec)
        playing = asyncio.create_task(play(EnvFactory(Chatter), engine, CHAT, _config(), spec, EnvThreads(), control))
        while not control.status().phase.startswith("engine"):
            await asyncio.sleep(0.001)
        control.cancel()
        return await asyncio.wait_for(playing, 10)

    trajectory = asyncio.run(scenario())
    assert (trajectory.stop, trajectory.usable) == (StopReason.CANCELLED, False)
    assert np.isnan(trajectory.reward)
    assert Chatter.closed == ["task-3"]


def test_cancelling_ends_an_episode_whose_environment_hangs() -> None:
    async def scenario() -> tuple[Trajectory, float, int]:
        engine = ScriptedEngine(lambda request: _answer("hi"))
        spec = _spec(3, where="step", how="hang")
        control, threads = EpisodeControl(spec), EnvThreads()
        playing = asyncio.create_task(play(EnvFactory(Broken), engine, CHAT, _config(), spec, threads, control))
        while not control.status().phase.startswith("env.step"):
            await asyncio.sleep(0.001)
        began = time.monotonic()
        control.cancel()
        return await playing, time.monotonic() - began, threads.abandoned

    trajectory, seconds, abandoned = asyncio.run(scenario())
    assert trajectory.stop is StopReason.CANCELLED
    assert seconds < 30  # did not wait for the step, whose deadline is 60 s
    assert abandoned == 0  # not hung yet: its deadline has not passed
    assert Chatter.closed == ["task-3"]
