"""The compact errands world: its solutions pass, chance does not, splits share no names, demonstrations are real."""

from __future__ import annotations

import random

import pytest

from rlpost.envs.base import EnvError, Score, Task
from rlpost.envs.errands import mini
from rlpost.envs.errands.mini import USES, MiniErrands, _play
from rlpost.envs.errands.mini_world import KINDS, POOLS, VARIANTS, MiniWorld, build


def play(task: Task, *commands: str) -> tuple[list[str], Score, dict[str, float]]:
    env = MiniErrands(task, 0)
    env.start()
    answers = [env.step(command).text for command in commands]
    result = answers, env.score(), dict(env.metrics())
    env.close()
    return result


@pytest.mark.parametrize("split", list(USES))
def test_every_task_is_solved_by_its_solution_and_not_by_nothing_or_damage(split: str) -> None:
    for task in MiniErrands.tasks(split, 0):
        data = task.data
        messages = _play(build(data["kind"], data["use"], data["variant"], split), random.Random(0), True, True)
        said = [message["content"] for message in messages if message["role"] == "assistant"]
        assert play(task, *said)[1] == Score(1.0, success=True), task
        assert not play(task, "d")[1].solved
        world = MiniWorld(build(data["kind"], data["use"], data["variant"], split))
        for command in said:
            world.act(command)
        world._state.insert("notes_notes", title="x", content="y")
        assert not world.evaluate().success
        world.close()


@pytest.mark.parametrize(("right", "least", "most"), [(0.0, 0.0, 0.02), (mini.RIGHT, 0.05, 0.15)])
def test_a_clerk_who_knows_nothing_solves_next_to_nothing_and_a_careless_one_a_tenth(
    right: float, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mini, "RIGHT", right)
    draw, solved = random.Random(1), 0
    tasks = list(MiniErrands.tasks("train", 0))
    for task in tasks:
        data = task.data
        messages = _play(build(data["kind"], data["use"], data["variant"], "train"), draw, False, True)
        solved += play(task, *(str(m["content"]) for m in messages if m["role"] == "assistant"))[1].solved
    assert least <= solved / len(tasks) <= most


def test_splits_variants_and_difficulties() -> None:
    assert not set(POOLS["train"]) & (set(POOLS["eval"]) | set(POOLS["check"]))
    train, held_out = MiniErrands.tasks("train", 0), MiniErrands.tasks("eval", 0)
    assert (len(train), len(held_out)) == (40 * 18, 14 * 18)
    assert len({task.scenario for task in held_out}) * VARIANTS == len(held_out)
    assert {task.difficulty for task in train} == {1, 2, 3}
    assert {task.difficulty for task in MiniErrands.tasks("train", 0, difficulties=[2, 3])} == {2, 3}
    assert {str(task.data["kind"]) for task in train} == set(KINDS)
    with pytest.raises(EnvError, match="no split 'test'"):
        MiniErrands.tasks("test", 0)


def test_answers_of_the_world() -> None:
    task = next(task for task in MiniErrands.tasks("train", 0) if task.data["kind"] == "pay")
    name, amount = str(MiniErrands(task, 0).start()[0]["content"]).split()[1:]
    email = play(task, f"c {name}")[0][0].split()[0]
    answers, score, metrics = play(task, "c bbb", "hello", f"p {name} {amount}", f"p {email} {amount}", "a 1", "d")
    assert answers == ["-", "?", "no", "ok", "no", "ok"]
    assert score.solved
    assert metrics == {"execution_errors_a_turn": 0.5, "unfinished": 0.0}
    assert play(task, f"p {email} {amount}", *["r bbb"] * 5)[1:] == (
        Score(0.0, success=False),
        {"execution_errors_a_turn": 0.0, "unfinished": 1.0},
    )


def test_paying_twice_is_damage() -> None:
    task = next(task for task in MiniErrands.tasks("train", 0) if task.data["kind"] == "pay")
    name, amount = str(MiniErrands(task, 0).start()[0]["content"]).split()[1:]
    email = play(task, f"c {name}")[0][0].split()[0]
    _, score, _ = play(task, f"p {email} {amount}", f"p {email} {amount}", "d")
    assert score == Score(0.5, success=False)  # the payment is there (1 passed), and one too many (1 failed)


def test_demonstrations() -> None:
    train, check = (MiniErrands.demonstrations(split, 0, 200, expert_share=0.3) for split in ("train", "check"))
    for demonstration in [*train, *check]:
        assert [message["role"] for message in demonstration.messages[:2]] == ["user", "assistant"]
        assert demonstration.messages[-1]["role"] == "assistant"
    assert train == MiniErrands.demonstrations("train", 0, 200, expert_share=0.3)
    names = {str(demonstration.messages[0]["content"]).split()[1] for demonstration in check}
    assert names <= set(POOLS["check"])
    with pytest.raises(EnvError, match="'train' and 'check', not 'eval'"):
        MiniErrands.demonstrations("eval", 0, 1)
