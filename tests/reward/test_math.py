"""Mathematical answers: the table of verdicts, hostile texts, references of every type, modes, threads."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from rlpost.eval.scores import majority
from rlpost.reward import math
from rlpost.reward.functions import load_reward
from rlpost.reward.math import child
from rlpost.reward.pool import SessionPool
from rlpost.reward.score import RewardError
from tests.reward.math_cases import RIGHT, WRONG


def test_the_table_has_a_thousand_cases() -> None:
    assert len({*RIGHT, *WRONG}) == len(RIGHT) + len(WRONG) >= 1000


@pytest.mark.parametrize(("answer", "gold"), RIGHT)
def test_right(answer: str, gold: str) -> None:
    assert math.verify(answer, gold)


@pytest.mark.parametrize(("answer", "gold"), WRONG)
def test_wrong(answer: str, gold: str) -> None:
    assert not math.verify(answer, gold)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "LIMITS", replace(child.LIMITS, wall_s=0.5))
    monkeypatch.setattr(child, "judges", SessionPool(child.new_judge, 10))


def test_an_answer_that_takes_for_ever_is_wrong_and_the_next_one_is_judged(impatient: None) -> None:
    score = math.score(r"\boxed{x^{x^{x^{x^{x}}}}}", {"answer": "x^2 + 1"})
    assert (score.reward, score.parts, score.solved) == (0.0, {"unjudged": 1.0}, False)
    assert math.score(r"\boxed{3}", {"answer": "3"}) == math.Score(1.0, {"unjudged": 0.0}, answer="3")


HOSTILE = [
    "(" * 5000,
    r"\boxed{" * 3000,
    r"\boxed{" + "{" * 3000 + "}" * 3001,
    r"\boxed{" + r"\frac{1}{" * 300 + "1" + "}" * 301,
    r"\boxed{" + "9" * 20000 + "}",
    "\ud800 \x00 \\boxed{\ud800}",
    r"\boxed{__import__('os').system('true')}",
    "answer is " * 3000,
    r"\boxed{9^{9^{9^9}}}",
    r"\boxed{4000!}",
    r"\boxed{((4000!)!)!}",
    r"\boxed{(x+1)^{9999}}",
    r"\boxed{\prod_{n=1}^{10^9} n}",
    r"\boxed{\lfloor \pi \cdot 10^{15000}\rfloor}",
    r"\boxed{0." + "9" * 1400 + "...}",
    r"\boxed{" + "1," * 700 + "}",
    r"\boxed{1} and " * 3000,
    "1" + "," * 4000,
    "**1" * 1300,
    "#### \n" * 5000,
    "<answer>1" * 5000,
    "<think>" * 5000,
    r"\boxed{5 " + "m/" * 150 + "}",
    r"\boxed{" + "x=" * 500 + "1}",
    r"\boxed{" + r"\sin " * 400 + "x}",
    "\n" * 100_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_are_wrong_and_take_no_time(text: str) -> None:
    math.verify("42", "42")  # the child is up
    began = time.monotonic()
    assert not math.verify(text, "42")
    assert time.monotonic() - began < 4.0  # far below a second alone; other tests may run beside it


@pytest.mark.parametrize(
    ("gold", "why"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        (None, "is empty"),
        ("nan", "is empty"),
        ("None", "is empty"),
        (float("nan"), "is empty"),
        (float("inf"), "which is no answer"),
        ({"value": "42"}, "is a dict"),
        (b"42", "is a bytes"),
        ([], "0 accepted answers"),
        (["42", None], "is empty"),
        ("None\n42", "has several lines"),
        (r"\frac{1}{2", "its braces do not close"),
        ("We see that it is so. " * 20, "a sentence of words"),
        ("...", "empty but for signs"),
    ],
)
def test_a_reference_that_is_none_is_an_error(gold: Any, why: str) -> None:
    with pytest.raises(RewardError, match=why):
        math.verify("42", gold)


@pytest.mark.parametrize(
    "gold",
    [
        *(
            42,
            42.0,
            "42.0",
            ["42"],
            [41, 42],
            ("41", "42"),
            "$42$",
            r"\boxed{42}",
            "The answer is 42.",
            "so 40+2\n#### 42",
        ),
        *(
            "a\n#### 41\n#### 42",
            "42 apples",
            "<answer>42</answer>",
            "**42**",
            "= 42",
            "42;",
            r"\[42\]",
            "x = 42",
            "(42)",
        ),
        *(
            r"First \boxed{7}, then \boxed{42}.",
            "He has <<40+2=42>>42.\n#### 42",
            r"42 \text{ cm}",
            "So it is 42. #### 42",
        ),
    ],
)
def test_references_of_every_type(gold: Any) -> None:
    assert math.verify(r"\boxed{42}", gold)
    assert not math.verify(r"\boxed{7}", gold)


def test_columns() -> None:
    assert math.score(r"\boxed{4}", {"solution": r"2 + 2 = \boxed{4}"}).reward == 1.0
    assert math.score(r"\boxed{4}", {"answer": None, "solution": r"\boxed{4}"}).reward == 1.0
    assert math.score("It is 4.", {"answer": 4}).reward == 1.0
    with pytest.raises(RewardError, match="it has: question, target"):
        math.score("4", {"question": "2 + 2", "target": "4"})


def test_a_reference_compared_as_a_text_leaves_a_signal() -> None:
    score = math.score(r"\boxed{t(0,4]}", {"answer": "t(0,4]"})
    assert (score.reward, score.parts) == (1.0, {"unjudged": 0.0, "as_text": 1.0})


def test_gsm8k_rows() -> None:
    row = {"question": "...", "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips.\n#### 1,072"}
    assert math.gsm8k("So she sold 1072 clips.", row) == math.Score(1.0, {"unjudged": 0.0}, answer="1072")
    assert math.gsm8k("#### 24", row).reward == 0.0
    with pytest.raises(RewardError, match="no '####'"):
        math.gsm8k("#### 24", {"answer": "24"})


@pytest.mark.parametrize(
    ("text", "anywhere", "boxed", "marked"),
    [
        (r"\boxed{42}", 1, 1, 0),
        ("#### 42", 1, 0, 1),
        ("The answer is 42.", 1, 0, 0),
        ("<answer>42</answer>", 1, 0, 0),
        ("\\boxed{41}\n#### 42", 0, 0, 1),
        ("\\boxed{42}\n#### 41", 1, 1, 0),
    ],
)
def test_strict_modes(text: str, anywhere: float, boxed: float, marked: float) -> None:
    row = {"answer": "42"}
    assert [load_reward(name)(text, row, "t").reward for name in ("math", "math_boxed", "math_marked")] == [
        anywhere,
        boxed,
        marked,
    ]


def test_rows_are_checked_before_training() -> None:
    reward = load_reward("math")
    reward.check([{"answer": "42"}, {"answer": r"\frac12"}, {"answer": ["1", "2"]}])
    with pytest.raises(RewardError, match=r"row 1: .*its braces do not close \(1 of 2 rows"):
        reward.check([{"answer": "42"}, {"answer": r"\frac{12"}])
    with pytest.raises(RewardError, match="no '####'"):
        load_reward("gsm8k").check([{"answer": "42"}])


def test_equal_answers_vote_together() -> None:
    texts = [r"\boxed{\frac{1}{2}}", r"\boxed{0.5}", r"\boxed{1/2}", r"\boxed{3}", r"\boxed{3.0}"]
    scores = [math.score(text, {"answer": "0.5"}) for text in texts]
    assert majority([score.answer for score in scores], [score.solved for score in scores]) == 1.0
    wrong = [math.score(text, {"answer": "7"}).answer for text in (*texts, r"\boxed{2, 1}", r"\boxed{1, 2}")]
    assert [len(set(names)) for names in (wrong[:3], wrong[3:5], wrong[5:])] == [1, 1, 1]


def test_threads() -> None:
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(lambda i: math.verify(f"It is {i}.", str(i - i % 2)), range(40)))
    assert verdicts == [True, False] * 20


def test_a_forked_copy_has_children_of_its_own() -> None:
    assert math.verify("7", "7")
    forked = os.fork()
    if forked == 0:
        os._exit(0 if math.verify("8", "8") and not math.verify("8", "9") else 1)
    assert os.waitpid(forked, 0)[1] == 0
    assert math.verify("9", "9")
