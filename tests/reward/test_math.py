"""Mathematical answers: the table of verdicts, hostile texts, bad references, threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from rlpost.reward import math
from rlpost.reward.pool import SessionPool
from rlpost.reward.score import RewardError
from tests.reward.math_cases import RIGHT, WRONG


def test_the_table_has_a_hundred_cases() -> None:
    assert len({*RIGHT, *WRONG}) == len(RIGHT) + len(WRONG) >= 100


@pytest.mark.parametrize(("answer", "gold"), RIGHT)
def test_right(answer: str, gold: str) -> None:
    assert math.verify(answer, gold)


@pytest.mark.parametrize(("answer", "gold"), WRONG)
def test_wrong(answer: str, gold: str) -> None:
    assert not math.verify(answer, gold)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math, "_LIMITS", replace(math._LIMITS, wall_s=0.5))
    monkeypatch.setattr(math, "_judges", SessionPool(math._new_judge, 10))


def test_an_answer_that_takes_for_ever_is_wrong_and_the_next_one_is_judged(impatient: None) -> None:
    score = math.score(r"\boxed{9^{9^{9^9}}}", {"answer": "3"})
    assert (score.reward, score.parts, score.solved) == (0.0, {"unjudged": 1.0}, False)
    assert math.score(r"\boxed{3}", {"answer": "3"}) == math.Score(1.0, {"unjudged": 0.0}, answer="3")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000,
        r"\boxed{" * 3000,
        r"\boxed{" + "{" * 3000 + "}" * 3001,
        r"\boxed{" + r"\frac{1}{" * 300 + "1" + "}" * 301,
        r"\boxed{" + "9" * 20000 + "}",
        "\ud800 \x00 \\boxed{\ud800}",
        r"\boxed{__import__('os').system('true')}",
        "answer is " * 3000,
    ],
    ids=range(8),
)
def test_hostile_texts_are_wrong(text: str, impatient: None) -> None:
    assert math.verify(text, "42") is False


@pytest.mark.parametrize("gold", ["", "  ", "\n"])
def test_an_empty_reference_is_an_error(gold: str) -> None:
    with pytest.raises(RewardError, match="reference answer is empty"):
        math.verify("42", gold)


def test_columns() -> None:
    assert math.score(r"\boxed{4}", {"solution": r"2 + 2 = \boxed{4}"}).reward == 1.0
    assert math.score("It is 4.", {"answer": 4}).reward == 1.0
    with pytest.raises(RewardError, match="it has: question, target"):
        math.score("4", {"question": "2 + 2", "target": "4"})


def test_gsm8k_rows() -> None:
    row = {"question": "...", "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips.\n#### 1,072"}
    assert math.gsm8k("So she sold 1072 clips.", row) == math.Score(1.0, {"unjudged": 0.0}, answer="1072")
    assert math.gsm8k("#### 24", row).reward == 0.0
    with pytest.raises(RewardError, match="no '####'"):
        math.gsm8k("#### 24", {"answer": "24"})


def test_threads() -> None:
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(lambda i: math.verify(f"It is {i}.", str(i - i % 2)), range(40)))
    assert verdicts == [True, False] * 20


def test_a_forked_copy_has_children_of_its_own() -> None:
    assert math.verify("7", "7")
    child = os.fork()
    if child == 0:
        os._exit(0 if math.verify("8", "8") and not math.verify("8", "9") else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert math.verify("9", "9")
