"""Every benchmark: rows in their published form become questions; right answers are right and wrong ones wrong."""

from __future__ import annotations

import csv
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from rlpost.envs.base import Task
from rlpost.envs.single_turn import SingleTurn
from rlpost.eval.benchmark import EvalError
from rlpost.eval.catalogue import CATALOGUE
from rlpost.eval.find import find
from rlpost.eval.plan import MESSAGES, make_plan
from rlpost.eval.prompts import ask
from rlpost.eval.rows import shots_of, tasks_of
from rlpost.eval.settings import EvalSettings
from tests.eval.rows import CASES, FUNCTION, OTHER_FORMS, PROGRAM, Case


def write(folder: Path, *rows: dict[str, Any], name: str = "rows.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def question(case: Case, folder: Path, **options: Any) -> Task:
    data = {case.bench: write(folder, case.row)}
    settings = EvalSettings.model_validate({"model": "none", "bench": (case.bench,), "data": data, **options})
    return make_plan(settings).tasks[case.bench][0]


def judge(case: Case, task: Task, answer: str) -> bool:
    env = SingleTurn(task, 0, reward=CATALOGUE[case.bench].reward, prompt=MESSAGES)
    env.start()
    env.step(answer)
    return env.score().solved


@pytest.mark.parametrize("case", [*CASES, *OTHER_FORMS], ids=lambda case: f"{case.bench}-{sorted(case.row)[0]}")
def test_published_rows(case: Case, tmp_path: Path) -> None:
    task = question(case, tmp_path)
    assert case.asks in task.data[MESSAGES][-1]["content"]
    assert judge(case, task, case.right)
    assert not judge(case, task, case.wrong)


def test_every_benchmark_has_a_case() -> None:
    assert {case.bench for case in CASES} == {name for name, found in CATALOGUE.items() if found.env is None}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.bench)
def test_base_prompts_are_one_text(case: Case, tmp_path: Path) -> None:
    (message,) = question(case, tmp_path, prompts="base").data[MESSAGES]
    assert case.asks.split(" How")[0] in message["content"] or case.bench == "countdown"
    assert "{" not in CATALOGUE[case.bench].base_prompt.format_map(_Any())


class _Any(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "x"


def test_chat_prompts_word_by_word(tmp_path: Path) -> None:
    (message,) = question(CASES[0], tmp_path).data[MESSAGES]
    assert message == {
        "role": "user",
        "content": "Ann has 3 bags of 7 nuts. How many?\n"
        "Please reason step by step, and put your final answer within \\boxed{}.",
    }


def test_worked_examples_come_first(tmp_path: Path) -> None:
    shots = [{"question": f"{i} + {i}?", "answer": f"It is {2 * i}.\n#### {2 * i}"} for i in (1, 2, 3)]
    data = {"gsm8k": write(tmp_path, CASES[0].row), "gsm8k.shots": write(tmp_path, *shots, name="train.jsonl")}
    settings = EvalSettings.model_validate({"model": "none", "bench": ("gsm8k",), "data": data, "shots": 2})
    messages = make_plan(settings).tasks["gsm8k"][0].data[MESSAGES]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2 + ["user"]
    assert messages[1]["content"] == "It is 2.\n#### 2"
    base = make_plan(settings.model_copy(update={"prompts": "base"})).tasks["gsm8k"][0].data[MESSAGES]
    assert base[0]["content"] == (
        "Question: 1 + 1?\nAnswer: It is 2.\n#### 2\n\nQuestion: 2 + 2?\nAnswer: It is 4.\n#### 4\n\n"
        "Question: Ann has 3 bags of 7 nuts. How many?\nAnswer:"
    )


def test_mbpp_takes_its_own_split_and_its_own_examples(tmp_path: Path) -> None:
    rows = [{**PROGRAM, "task_id": number} for number in (1, 2, 3, 10, 11, 510, 511)]
    path = write(tmp_path, *rows)
    assert [task.id for task in tasks_of(find("mbpp"), path, None)] == ["11", "510"]
    shots = shots_of(find("mbpp"), path, 3)
    assert len(shots) == 3
    message = ask(find("mbpp"), tasks_of(find("mbpp"), path, 1, 0)[0], shots, "base")[0]["content"]
    assert message.count("[BEGIN]\ndef tail(word): \n\treturn word[1:]\n[DONE]\n\n") == 3
    assert message.endswith('assert tail("ab") == "b"\n[BEGIN]\n')


def test_a_continued_function_is_judged_with_its_head(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.bench == "humaneval")
    task = question(case, tmp_path, prompts="base")
    assert task.data[MESSAGES][0]["content"] == FUNCTION["prompt"].rstrip()
    assert judge(case, task, "\n" + FUNCTION["canonical_solution"])
    assert not judge(case, task, "    return x\n")


def test_files_of_other_kinds(tmp_path: Path) -> None:
    sudoku = next(case for case in CASES if case.bench == "sudoku")
    with (tmp_path / "4x4.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["Puzzle", "Solution"])
        writer.writeheader()
        writer.writerow(sudoku.row)
    assert tasks_of(find("sudoku"), str(tmp_path / "4x4.csv"), None)[0].data["puzzle"] == "3102200002100320"
    (tmp_path / "HumanEval.jsonl.gz").write_bytes(gzip.compress(json.dumps(FUNCTION).encode()))
    assert tasks_of(find("humaneval"), str(tmp_path / "HumanEval.jsonl.gz"), None)[0].id == "HumanEval/900"
    (tmp_path / "SVAMP.json").write_text(json.dumps([CASES[1].row]))
    assert tasks_of(find("svamp"), str(tmp_path / "SVAMP.json"), None)[0].id == "chal-1"
    for number in (2, 1):  # MATH's own archive: a file a problem, a folder a subject
        place = tmp_path / "MATH" / "test" / "algebra" / f"{number}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(next(case for case in CASES if case.bench == "math").row))
    found = tasks_of(find("math"), str(tmp_path / "MATH" / "test"), None)
    assert [task.id for task in found] == ["algebra/1.json", "algebra/2.json"]


BROKEN = [
    ("gsm8k", {"question": "1+1?"}, r"line 2: the column answer is missing or empty; the row has: question"),
    ("gsm8k", {"question": "1+1?", "answer": "It is 2."}, r"line 2: the column 'answer' has no number after '####'"),
    ("gsm8k", {"question": 7, "answer": "#### 2"}, r"line 2: the column 'question' is not a text"),
    ("math500", {"problem": "1?", "solution": "No box."}, r"line 2: the column answer \(or a solution"),
    ("olympiadbench", {"question": "1?", "final_answer": [1]}, r"line 2: .*not a list of texts"),
    (
        "humaneval",
        {"prompt": "def f():", "entry_point": "f", "test": ""},
        r"line 2: the column test is missing or empty",
    ),
    ("mbpp", {**PROGRAM, "test_list": "assert 1"}, r"line 2: the column 'test_list' is not a list"),
    ("countdown", {"nums": ["x"], "target": 3}, r"line 2: invalid literal"),
    ("sudoku", {"puzzle": "9" * 16, "solution": "1" * 16}, r"line 2: the column 'puzzle' is not 16 digits"),
]


@pytest.mark.parametrize(("bench", "row", "message"), BROKEN)
def test_a_malformed_row_is_named_by_file_and_line(
    bench: str, row: dict[str, Any], message: str, tmp_path: Path
) -> None:
    good = next(case.row for case in CASES if case.bench == bench)
    with pytest.raises(EvalError, match=r"rows\.jsonl, " + message):
        tasks_of(find(bench), write(tmp_path, good, row), None)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(CASES[0].row) + "\n{broken\n")
    with pytest.raises(EvalError, match=r"benchmark gsm8k: .*rows\.jsonl, line 2: not JSON"):
        tasks_of(find("gsm8k"), str(path), None)


def test_ids_must_be_unique(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match=r"line 2: the id 'HumanEval/900' is also that of .*line 1"):
        tasks_of(find("humaneval"), write(tmp_path, FUNCTION, FUNCTION), None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gms8k", "did you mean 'gsm8k'"),
        ("aime", "aime2"),
        ("humaneval-plus", "humaneval"),
        ("zzz", "gsm8k, "),
    ],
)
def test_an_unknown_benchmark_shows_the_nearest(name: str, message: str) -> None:
    with pytest.raises(EvalError, match=re.escape(message)):
        find(name)


def test_a_benchmark_object_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "my_words.py").write_text("ASK = 'Well, {question}'\n")
    (tmp_path / "mine.py").write_text(
        "from my_words import ASK\nfrom rlpost.eval.benchmark import Benchmark\n\n"
        "EASY = Benchmark(name='anything', prompt=ASK, reward='math')\nOTHER = 3\n"
    )
    found = find(f"{tmp_path}/mine.py:EASY")
    assert (found.name, found.prompt) == ("easy", "Well, {question}")
    with pytest.raises(EvalError, match="is not a rlpost"):
        find(f"{tmp_path}/mine.py:OTHER")


def test_missing_data(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="no data file"):
        tasks_of(find("gsm8k"), str(tmp_path / "none.jsonl"), None)
    with pytest.raises(EvalError, match="give --data sudoku=FILE"):
        tasks_of(find("sudoku"), None, None)
    with pytest.raises(EvalError, match="has no worked examples"):
        shots_of(find("humaneval"), None, 2)
    with pytest.raises(EvalError, match="has only 1 usable rows"):
        shots_of(find("gsm8k"), write(tmp_path, CASES[0].row), 2)


def test_worlds_are_benchmarks_with_scenarios() -> None:
    errands = tasks_of(find("errands"), None)
    assert len({task.id for task in errands}) == len(errands) > 10
    assert len({task.scenario for task in errands}) == len(errands) / 3  # three variants each, for scenario completion
    assert len(tasks_of(find("payments"), None, limit=7)) == 7
    other = tasks_of(find("errands"), None, options={"eval": "test_normal"})
    assert {task.scenario for task in other}.isdisjoint(task.scenario for task in errands)
