"""The rollout worker: many episodes at once, in order, cancellable; and as a Ray actor far from the checkout."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from pydantic import ValidationError

from rlpost.envs.base import Task
from rlpost.reward.plugins import Plugin, PluginError, packages
from rlpost.rollout.chat import ChatError, TemplateFormat
from rlpost.rollout.config import RolloutConfig
from rlpost.rollout.gate import OrderedGate
from rlpost.rollout.specs import EpisodeSpec, Setting, Summary, WorkerSetup
from rlpost.rollout.trajectory import StopReason, Trajectory
from rlpost.rollout.weight_update import WeightUpdate
from rlpost.rollout.worker import RolloutWorker
from tests.support.engines import LockStepScriptedEngine, ScriptedEngine
from tests.support.tokenizers import byte_tokenizer
from tests.support.worlds import Broken, Chatter, Keeper

T = TypeVar("T")
ENGINES = Path(__file__).parent.parent / "support" / "engines.py"


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    Chatter.closed.clear()
    Broken.release.clear()
    yield
    Broken.release.set()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


def _setup(model_folder: str, env: str = "Chatter", deterministic: bool = False, **config: Any) -> WorkerSetup:
    return WorkerSetup(
        model_folder=model_folder,
        engine=Plugin("tests.support.engines:build"),
        engine_options={"lock_step": deterministic},
        env=Plugin(f"tests.support.worlds:{env}"),
        config=RolloutConfig(**({"max_turns": 3, "max_new_tokens": 16, "max_context": 400} | config)),
        deterministic=deterministic,
        worker=5,
    )


def _specs(count: int, **data: Any) -> list[EpisodeSpec]:
    return [EpisodeSpec(Task(f"t{i}", data), group_id=i // 4, index=i % 4, seed=i, order=i) for i in range(count)]


def _engine_of(worker: RolloutWorker) -> ScriptedEngine:
    engine = worker._engine
    assert isinstance(engine, ScriptedEngine)
    return engine


def _soon(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(coroutine, 60))


async def _until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_a_summary_tells_what_the_trajectory_holds(model_folder: str) -> None:
    async def scenario() -> list[tuple[Summary, Trajectory]]:
        worker = RolloutWorker(_setup(model_folder))
        return await asyncio.gather(*(worker.run(spec) for spec in _specs(12)))

    for i, (summary, trajectory) in enumerate(_soon(scenario())):
        assert (summary.task_id, summary.group_id, summary.index, summary.worker) == (f"t{i}", i // 4, i % 4, 5)
        assert (summary.tokens, summary.policy_tokens) == (len(trajectory), int(trajectory.policy_mask.sum()))
        assert (summary.reward, summary.stop, summary.usable) == (trajectory.reward, trajectory.stop, True)
        assert (summary.turns, summary.truncated_turns) == (
            len(trajectory.turns),
            sum(turn.truncated for turn in trajectory.turns),
        )
        assert (summary.version_min, summary.version_max, summary.worn_out) == (0, 0, False)
        assert not summary.reward_bug


def test_the_same_seed_plays_the_same_episode(model_folder: str) -> None:
    async def scenario() -> list[Trajectory]:
        worker = RolloutWorker(_setup(model_folder))
        return [(await worker.run(spec))[1] for spec in (*_specs(3), *_specs(3))]

    first = _soon(scenario())
    for a, b in zip(first[:3], first[3:], strict=True):
        np.testing.assert_array_equal(a.token_ids, b.token_ids)
        np.testing.assert_array_equal(a.rollout_logprobs, b.rollout_logprobs)


def test_no_more_than_max_concurrent_play_and_the_rest_enter_in_order(model_folder: str) -> None:
    async def scenario() -> tuple[int, int, list[int]]:
        worker = RolloutWorker(_setup(model_folder, max_concurrent=1, max_turns=1))
        engine = _engine_of(worker)
        engine.held = asyncio.Event()
        runs = [asyncio.create_task(worker.run(spec)) for spec in reversed(_specs(6))]
        await _until(lambda: any(control.status().phase.startswith("engine") for control in worker._controls))
        status = await worker.status()
        engine.held.set()
        await asyncio.gather(*runs)
        return len(status.running) - status.waiting, status.waiting, [request.order for request, _ in engine.crossed]

    assert _soon(scenario()) == (1, 5, [0, 1, 2, 3, 4, 5])


def test_cancel_reaches_playing_and_waiting_episodes(model_folder: str) -> None:
    async def scenario() -> tuple[int, list[tuple[Summary, Trajectory]], list[tuple[Summary, Trajectory]]]:
        worker = RolloutWorker(_setup(model_folder, max_concurrent=2))
        engine = _engine_of(worker)
        engine.held = asyncio.Event()
        runs = [asyncio.create_task(worker.run(spec)) for spec in _specs(6)]
        await _until(lambda: sum(c.status().phase.startswith("engine") for c in worker._controls) == 2)
        found = await worker.cancel([(0, 0), (0, 3), (1, 1), (9, 9)])
        cancelled = await asyncio.gather(runs[0], runs[3], runs[5])
        engine.held.set()
        return found, cancelled, await asyncio.gather(runs[1], runs[2], runs[4])

    found, cancelled, others = _soon(scenario())
    assert found == 3
    for summary, trajectory in cancelled:
        assert (summary.stop, summary.usable, summary.failed) == (StopReason.CANCELLED, False, False)
        assert np.isnan(trajectory.reward)
    assert len(cancelled[1][1]) == 0  # never played
    assert all(summary.usable for summary, _ in others)
    assert sorted(Chatter.closed) == ["t0", "t1", "t2", "t4"]


def test_status_says_what_runs_on_which_task(model_folder: str) -> None:
    async def scenario() -> Any:
        worker = RolloutWorker(_setup(model_folder, deterministic=True))
        engine = _engine_of(worker)
        engine.held = asyncio.Event()
        runs = [asyncio.create_task(worker.run(spec)) for spec in _specs(2)]
        await _until(lambda: sum(c.status().phase.startswith("engine") for c in worker._controls) == 2)
        status = await worker.status()
        engine.held.set()
        await asyncio.gather(*runs)
        return status, await worker.status()

    during, after = _soon(scenario())
    assert [(r.task_id, r.group_id, r.index, r.phase) for r in during.running] == [
        ("t0", 0, 0, "engine, turn 1"),
        ("t1", 0, 1, "engine, turn 1"),
    ]
    assert all(0 <= r.phase_s <= r.episode_s for r in during.running)
    assert (after.running, after.played, after.version, after.worker) == ([], 2, 0, 5)
    assert after.engine["requests"] >= 2


def test_a_worker_wears_out_on_hung_threads_and_says_so(model_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlpost.rollout.worker.MAX_ABANDONED_THREADS", 1)

    async def scenario() -> list[Summary]:
        worker = RolloutWorker(_setup(model_folder, "Broken", deadline_s=0.2))
        return [(await worker.run(spec))[0] for spec in _specs(2, where="step", how="hang")]

    summaries = _soon(scenario())
    assert [(s.stop, s.abandoned_threads, s.worn_out) for s in summaries] == [
        (StopReason.ENV_TIMEOUT, 1, False),
        (StopReason.ENV_TIMEOUT, 2, True),
    ]


def test_lock_step_engines_learn_when_episodes_end(model_folder: str) -> None:
    async def scenario() -> list[str]:
        worker = RolloutWorker(_setup(model_folder, deterministic=True, max_concurrent=1))
        await worker.begin(3)
        await asyncio.gather(*(worker.run(spec) for spec in _specs(3)))
        engine = _engine_of(worker)
        assert isinstance(engine, LockStepScriptedEngine)
        return engine.told

    assert _soon(scenario()) == ["expect 3", "done", "done", "done"]


def test_update_and_probe_go_to_the_engine(model_folder: str) -> None:
    async def scenario() -> tuple[int, int]:
        worker = RolloutWorker(_setup(model_folder))
        await worker.update(WeightUpdate(version=3))
        version = (await worker.status()).version
        probe = await worker.probe([[1, 2, 3]], 1.0, 0)
        await worker.close()
        return version, probe.version

    assert _soon(scenario()) == (3, 3)


def test_what_cannot_be_set_up_is_refused_in_words(model_folder: str, tmp_path: Path) -> None:
    with pytest.raises(ChatError, match="cannot load a tokenizer"):
        RolloutWorker(_setup(str(tmp_path / "nowhere")))
    with pytest.raises(PluginError, match="has no 'Nobody'"):
        RolloutWorker(_setup(model_folder, env="Nobody"))
    with pytest.raises(PluginError, match=r"not a class derived from rlpost\.envs\.base\.Env"):
        RolloutWorker(_setup(model_folder, env="threading"))


@pytest.mark.parametrize("key", ["top_p", "top_k", "min_p", "repetition_penalty"])
def test_truncated_sampling_is_refused_with_the_reason(key: str) -> None:
    with pytest.raises(ValidationError, match=f"{key}: not offered.*whole distribution"):
        RolloutConfig.model_validate({key: 1})


def test_a_context_without_room_for_a_prompt_is_refused() -> None:
    with pytest.raises(ValidationError, match="leaves no room for a prompt"):
        RolloutConfig(max_new_tokens=64, max_context=64)


def test_the_gate_hands_on_the_place_of_one_that_gave_up() -> None:
    async def scenario() -> list[str]:
        gate, seen = OrderedGate(1), []
        loop = asyncio.get_running_loop()
        cuts = [loop.create_future() for _ in range(3)]

        async def visit(order: int) -> None:
            if await gate.enter(order, cuts[order]):
                seen.append(f"in {order}")
                await asyncio.sleep(0.01)
                gate.leave()
            else:
                seen.append(f"gave up {order}")

        visits = [asyncio.create_task(visit(order)) for order in range(3)]
        await asyncio.sleep(0.001)
        cuts[1].set_result(None)
        await asyncio.gather(*visits)
        assert await gate.enter(0, loop.create_future())
        return seen

    assert _soon(scenario()) == ["in 0", "gave up 1", "in 2"]


WORLD = """
import os
from pathlib import Path
from rlpost.envs.single_turn import SingleTurn

class Here(SingleTurn):
    def metrics(self):
        return {"in_the_drivers_folder": float(Path("marker").exists()), "pid": float(os.getpid())}
"""
REWARD = """
def length(completion, task):
    return float(len(completion) * task["worth"])
"""


@pytest.mark.usefixtures("ray_cluster")
def test_as_a_ray_actor_elsewhere_it_runs_a_users_files(
    model_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    (tmp_path / "world.py").write_text(WORLD)
    (tmp_path / "rewards.py").write_text(REWARD)
    (tmp_path / "marker").touch()
    monkeypatch.chdir(tmp_path)
    setup = WorkerSetup(
        model_folder=model_folder,
        engine=Plugin.locate(f"{ENGINES}:build"),
        env=Plugin.locate("world.py:Here"),
        env_options={"reward": Plugin.locate("rewards.py:length")},
        config=RolloutConfig(max_new_tokens=8, max_context=100),
    )
    # As a job's packages reach an actor: behind everything installed, from a folder that is not the driver's.
    sent = {"env_vars": {"PYTHONPATH": os.pathsep.join(str(one.copy.parent) for one in packages(setup.env))}}
    for name in ("world.py", "rewards.py"):  # the actor must not need them
        (tmp_path / name).unlink()
    actor = ray.remote(RolloutWorker).options(max_concurrency=64, num_cpus=0.5, runtime_env=sent).remote(setup)
    try:
        pairs = [actor.run.options(num_returns=2).remote(spec) for spec in _specs(8, prompt="say", worth=2)]
        summaries = ray.get([summary for summary, _ in pairs], timeout=120)
        trajectories = ray.get([trajectory for _, trajectory in pairs], timeout=120)
    finally:
        ray.kill(actor)
    chat = TemplateFormat(byte_tokenizer())
    for summary, trajectory in zip(summaries, trajectories, strict=True):
        said = chat.decode(trajectory.token_ids[trajectory.policy_mask].tolist())
        assert summary.reward == trajectory.reward == 2.0 * len(said)
        assert summary.metrics["in_the_drivers_folder"] == 0.0
        assert summary.metrics["pid"] != float(os.getpid())


def test_a_worker_serves_several_settings(model_folder: str) -> None:
    setup = _setup(model_folder)
    short = RolloutConfig(max_turns=1, max_new_tokens=4, max_context=400, chat="plain", separator="")
    other = Setting(Plugin("tests.support.worlds:QuickChatter"), short, {"turns": 9}, logprobs=False)
    setup = dataclasses.replace(setup, settings={"other": other})
    specs = [dataclasses.replace(spec, setting="other" * (i % 2)) for i, spec in enumerate(_specs(6))]

    async def scenario() -> list[tuple[Summary, Trajectory]]:
        worker = RolloutWorker(setup)
        return await asyncio.gather(*(worker.run(spec) for spec in specs))

    for spec, (summary, trajectory) in zip(specs, _soon(scenario()), strict=True):
        assert summary.turns == (1 if spec.setting else 3)
        assert trajectory.policy_tokens <= (4 if spec.setting else 48)
        assert summary.usable


def test_a_turn_ends_at_a_text(model_folder: str) -> None:
    """What follows the text neither reaches the environment nor counts as running out of tokens."""
    config = RolloutConfig(max_turns=1, max_new_tokens=16, max_context=400)
    setting = Setting(Plugin("tests.support.worlds:Keeper"), config, stop=("\nQ:", "!!"))
    setup = dataclasses.replace(
        _setup(model_folder), settings={"": setting}, engine=Plugin("tests.support.engines:says")
    )

    async def scenario(text: str) -> tuple[Summary, Trajectory]:
        worker = RolloutWorker(dataclasses.replace(setup, engine_options={"text": text, "model": model_folder}))
        return await worker.run(_specs(1)[0])

    for text, seen, stop in [
        ("4\nQ: next?", "4", StopReason.DONE),
        ("4!!\nQ:", "4", StopReason.DONE),
        ("4 and on and on and on", "4 and on and on ", StopReason.TOKEN_LIMIT),
    ]:
        Keeper.kept.clear()
        summary, trajectory = _soon(scenario(text))
        assert Keeper.kept == [seen]
        assert (summary.stop, trajectory.turns[0].truncated) == (stop, stop is StopReason.TOKEN_LIMIT)


def test_a_stop_text_is_looked_for_in_the_newest_tokens_only(model_folder: str) -> None:
    ends = TemplateFormat(byte_tokenizer()).stop_check(["\nQ:"])
    assert ends is not None
    ids = byte_tokenizer()("4\nQ: and so on and so forth", add_special_tokens=False)["input_ids"]
    assert ends(ids[:4])
    assert not ends(ids[:3])
    assert not ends(ids)  # found long ago, when it was new
    assert TemplateFormat(byte_tokenizer()).stop_check(()) is None
