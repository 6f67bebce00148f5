"""Every generated task: its own solution passes, doing nothing and sabotage fail; splits share no scenario."""

from __future__ import annotations

from typing import Any

import pytest

from rlpost.envs.errands import registry
from rlpost.envs.errands.apps import APPS
from rlpost.envs.errands.datasets import VARIANTS, TaskId, UnknownTask, load_task_ids, splits, task_of
from rlpost.envs.errands.evaluation import Verdict, difference, judge, same_answer
from rlpost.envs.errands.scenarios import SCENARIOS
from rlpost.envs.errands.world import ErrandsWorld
from rlpost.reward import sandbox

SABOTAGE = {
    "a note more": lambda state: state.insert("notes_notes", title="x", content="y"),
    "a contact gone": lambda state: state.delete(
        "phone_contacts", state.rows("SELECT id FROM phone_contacts")[-1]["id"]
    ),
    "a song renamed": lambda state: state.update("music_songs", 1, title="x"),
    "money sent to somebody": lambda state: state.insert(
        "wallet_transactions", email="a@b.c", direction="sent", amount=1
    ),
}


class Apis:
    """The APIs without a shell, for code that we wrote ourselves."""

    def __init__(self, state: Any, app: str = "") -> None:
        self._state, self._app = state, app

    def __getattr__(self, name: str) -> Any:
        if not self._app:
            return Apis(self._state, name)
        return lambda **arguments: registry.call(APPS, self._state, self._app, name, arguments)


class Played:
    """A task's world, and the verdict on it."""

    def __init__(self, task: TaskId) -> None:
        self.seed, self.plan = task.build()
        self.state = self.seed.state
        self._task, self._before = task, self.state.snapshot()
        self._names: dict[str, Any] = {"apis": Apis(self.state), "print": lambda *_: None}

    def run(self, blocks: Any) -> None:
        for block in blocks:
            exec(block, self._names)

    def verdict(self) -> Verdict:
        changes = difference(self._before, self.state.snapshot())
        answer, completed = self.state.answer, self.state.status is not None
        return judge(self._task.difficulty, self.plan.expected, changes, self.plan.answer, answer, completed)


@pytest.mark.parametrize("name", list(splits()))
def test_own_solution_passes_and_everything_else_fails(name: str) -> None:
    for number, task in enumerate(splits()[name]):
        played = Played(task)
        nothing = played.verdict()
        assert not nothing.success, task
        assert {test["label"] for test in nothing.failures} == {"no_op_fail"}
        assert {test["label"] for test in nothing.passes} == {"no_op_pass"}
        gave_up = Played(task)
        gave_up.run(["apis.supervisor.complete_task()"])
        earned = [test for test in gave_up.verdict().passes if test["label"] == "no_op_fail"]
        assert len(earned) == (played.plan.answer is None), "as in AppWorld: the label alone does not tell"
        played.run(played.plan.solution)
        assert played.verdict().success, (task, played.verdict())
        assert played.state.status == "success"
        saboteur = list(SABOTAGE.values())[number % len(SABOTAGE)]
        saboteur(played.state)
        spoilt = played.verdict()
        assert not spoilt.success
        assert "no_op_pass" in {test["label"] for test in spoilt.failures}


@pytest.mark.parametrize("kind", list(SCENARIOS))
def test_half_a_solution_and_a_wrong_answer_fail(kind: str) -> None:
    played = Played(TaskId(kind, 0, 1))
    played.run(played.plan.solution[:-1])
    registry.call(APPS, played.state, "supervisor", "complete_task", {"answer": "17.5"})
    assert not played.verdict().success


@pytest.mark.skipif(sandbox.isolation() is None, reason=sandbox.isolation_problem())
@pytest.mark.parametrize("kind", list(SCENARIOS))
def test_solutions_pass_in_the_real_shell(kind: str) -> None:
    task = next(task for tasks in splits().values() for task in tasks if task.kind == kind)
    with ErrandsWorld(str(task)) as world:
        for block in world.plan.solution:
            assert not world.execute(block).startswith("Execution failed.")
        assert world.task_completed()
        assert world.evaluate().success


def test_splits_and_scenarios() -> None:
    assert len(SCENARIOS) >= 12
    assert {scenario.difficulty for scenario in SCENARIOS.values()} == {1, 2, 3}
    seen: set[str] = set()
    for name, tasks in splits().items():
        scenarios = {task.scenario for task in tasks}
        assert not scenarios & seen, name
        assert len(tasks) == VARIANTS * len(scenarios)
        seen |= scenarios
    kinds = {name: {task.kind for task in tasks} for name, tasks in splits().items()}
    assert not kinds["train"] & (kinds["dev"] | kinds["test_normal"])
    assert not kinds["dev"] & kinds["test_normal"]
    assert kinds["train_variants"] == kinds["train"]
    assert all({SCENARIOS[kind].difficulty for kind in kinds[name]} == {1, 2, 3} for name in ("train", "dev"))
    assert len({str(task) for tasks in splits().values() for task in tasks}) == sum(map(len, splits().values()))


def test_ids_by_difficulty_and_unknown_ones() -> None:
    by_difficulty = [load_task_ids("train", difficulty) for difficulty in (1, 2, 3)]
    assert sum(map(len, by_difficulty)) == len(load_task_ids("train"))
    with pytest.raises(UnknownTask, match="there is no split 'trian'; there are: train"):
        load_task_ids("trian")
    with pytest.raises(UnknownTask, match="no task 'abc_1'"):
        task_of("abc_1")


def test_a_world_is_the_same_whenever_it_is_built() -> None:
    task = splits()["train"][7]
    (first, plan), (second, other) = task.build(), task.build()
    assert first.state.snapshot() == second.state.snapshot()
    assert plan.instruction == other.instruction
    variants = [TaskId(task.kind, task.use, variant).build()[1].instruction for variant in (1, 2, 3)]
    assert len(set(variants)) == 3


@pytest.mark.parametrize(
    ("given", "wanted", "same"),
    [
        ("3", 3, True),
        ("3.0", 3, True),
        ("$12.50", 12.5, True),
        ("Ada", "ada ", True),
        ("4", 3, False),
        (None, 3, False),
    ],
)
def test_answers(given: Any, wanted: Any, same: bool) -> None:
    assert same_answer(given, wanted) is same
