"""reasoning-gym tasks: its own questions and scores, disjoint splits, and model text evaluated in the sandbox only."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from rlpost.envs.base import EnvError, Score, Task
from rlpost.envs.reasoning import ReasoningGym, evaluates_text
from rlpost.reward.sandbox import SandboxUnavailable, isolation_problem
from rlpost.reward.score import RewardError

pytest.importorskip("reasoning_gym")
needs_isolation = pytest.mark.skipif(bool(isolation_problem()), reason="this host gives no isolation")
SIZES: dict[str, Any] = {"train_size": 20, "eval_size": 10}


def _tasks(dataset: str, split: str = "train", seed: int = 0, **options: Any) -> list[Task]:
    return list(ReasoningGym.tasks(split, seed, dataset=dataset, **(SIZES | options)))


def _score(task: Task, answer: str, dataset: str, **options: Any) -> tuple[Score, float]:
    env = ReasoningGym(task, 0, dataset, **options)
    env.start()
    assert env.step(answer).done
    return env.score(), env.metrics()["unscorable"]


@pytest.mark.parametrize("dataset", ["countdown", "mini_sudoku", "basic_arithmetic"])
def test_the_true_answer_is_worth_one(dataset: str) -> None:
    for task in _tasks(dataset)[:3]:
        assert _score(task, task.data["entry"]["answer"], dataset) == (Score(1.0), 0.0)


@pytest.mark.parametrize("dataset", ["countdown", "mini_sudoku", "basic_arithmetic"])
def test_splits_are_disjoint_and_held_out_questions_are_the_same_for_every_seed(dataset: str) -> None:
    def questions(split: str, seed: int) -> list[str]:
        return [task.data["entry"]["question"] for task in _tasks(dataset, split, seed)]

    train, other, held_out = questions("train", 0), questions("train", 1), questions("eval", 0)
    assert (len(set(train)), len(set(held_out))) == (20, 10)
    assert not set(train) & set(held_out)
    assert not set(other) & set(held_out)
    assert train != other
    assert train == questions("train", 0)
    assert held_out == questions("eval", 1)


def test_a_small_space_of_questions_still_gives_disjoint_splits_or_says_that_it_cannot() -> None:
    config = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    train = _tasks("chain_sum", config=config)
    held_out = _tasks("chain_sum", "eval", config=config)
    assert not {t.data["entry"]["question"] for t in train} & {t.data["entry"]["question"] for t in held_out}
    with pytest.raises(EnvError, match="too few distinct questions"):
        _tasks("chain_sum", config=config, train_size=300)


def test_the_prompt_and_the_answer_tag() -> None:
    task = _tasks("basic_arithmetic")[0]
    true = task.data["entry"]["answer"]
    env = ReasoningGym(task, 0, "basic_arithmetic", system_prompt="Answer in <a></a>.", answer_tag="a")
    assert env.start() == [
        {"role": "system", "content": "Answer in <a></a>."},
        {"role": "user", "content": task.data["entry"]["question"]},
    ]
    tagged = f"<a>17</a> no, wait: <a> {true} </a> surely"
    assert _score(task, tagged, "basic_arithmetic", answer_tag="a")[0].reward == 1.0
    assert _score(task, true, "basic_arithmetic", answer_tag="a")[0].reward == 0.0


@needs_isolation
@pytest.mark.parametrize(
    "answer", ["__import__('os')._exit(0)", "print('score-0: 1.0') or 1", "9**9**9**9", "the answer is 5", "(" * 90]
)
def test_words_that_a_judge_would_evaluate_run_in_the_sandbox(answer: str) -> None:
    task = _tasks("countdown")[0]
    score, _ = _score(task, answer, "countdown")
    assert score.reward < 1.0


@needs_isolation
def test_the_sandbox_gives_the_same_scores_as_the_package() -> None:
    import reasoning_gym

    for dataset, answers in (("spiral_matrix", ["[7, 'x']", "1 2 x"]), ("countdown", ["x + 1", "1 + pi"])):
        task = _tasks(dataset)[0]
        entry = task.data["entry"]
        judge = reasoning_gym.create_dataset(dataset)
        for answer in (*answers, f"[{', '.join(entry['answer'].split())}]"):
            assert _score(task, answer, dataset)[0].reward == judge.score_answer(answer, entry)


def test_without_isolation_words_are_not_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*_: Any, **__: Any) -> Any:
        raise SandboxUnavailable("this host gives no isolation")

    monkeypatch.setattr("rlpost.envs.reasoning.run", unavailable)
    task = _tasks("countdown")[0]
    with pytest.raises(RewardError, match="no isolation"):
        _score(task, "x + 1", "countdown")
    assert _score(task, "1 + 1", "countdown")[0].reward < 1.0  # plain arithmetic needs none


def test_an_answer_that_breaks_the_judge_is_worth_nothing_and_counted() -> None:
    task = _tasks("prime_factorization")[0]
    assert _score(task, "no number", "prime_factorization") == (Score(0.0), 1.0)


@pytest.mark.parametrize(
    "dataset", ["countdown", "spiral_matrix", "n_queens", "puzzle24", "simple_integration", "composite"]
)
def test_judges_that_evaluate_text_are_known(dataset: str) -> None:
    assert evaluates_text(dataset)


@pytest.mark.parametrize("dataset", ["basic_arithmetic", "mini_sudoku", "chain_sum", "maze"])
def test_judges_that_compare_text_are_known(dataset: str) -> None:
    assert not evaluates_text(dataset)


def test_bad_options_are_named() -> None:
    with pytest.raises(EnvError, match=r"no data set 'count_down' .*countdown"):
        _tasks("count_down")
    with pytest.raises(
        EnvError, match=r"does not fit reasoning-gym's 'countdown'.*max_numers.*Its keys: .*max_numbers"
    ):
        _tasks("countdown", config={"max_numers": 3})
    with pytest.raises(EnvError, match="max_numbers must be >= min_numbers"):
        _tasks("countdown", config={"min_numbers": 5, "max_numbers": 4})


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(EnvError, match=r"rlpost\[tasks\]"):
        _tasks("leg_counting")


def test_rows_of_a_file_are_entries_as_the_package_writes_them() -> None:
    entry = _tasks("basic_arithmetic")[0].data["entry"]
    for row in (entry, {**entry, "metadata": json.dumps(entry["metadata"])}, {"entry": entry}):
        task = Task("t1", row)
        ReasoningGym.check_tasks([task], dataset="basic_arithmetic")
        assert _score(task, entry["answer"], "basic_arithmetic") == (Score(1.0), 0.0)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "1 + 1", "answer": "2"}, "question, answer and metadata are wanted .* it has: question, answer"),
        ({"question": "1 + 1", "answer": "2", "metadata": "{"}, "column metadata is not JSON"),
        ({"question": "1 + 1", "answer": "2", "metadata": "[1]"}, "column metadata holds no object"),
    ],
)
def test_other_rows_are_refused_before_anything_is_played(row: dict[str, Any], words: str) -> None:
    with pytest.raises(EnvError, match=words):
        ReasoningGym.check_tasks([Task("t1", row)], dataset="basic_arithmetic")
