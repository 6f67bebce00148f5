"""Tests that use functions, classes, exceptions and the rest of a program: judged rightly, and not fooled."""

from __future__ import annotations

import pytest

from rlpost.reward import sandbox
from rlpost.reward.code import Ending, check
from rlpost.reward.sandbox import Limits
from rlpost.reward.score import RewardError
from tests.reward.code_attacks import ATTACKS, RIGHT, SQUARE_TESTS
from tests.reward.code_crossing import KINDS

pytestmark = pytest.mark.skipif(sandbox.isolation() is None, reason=sandbox.isolation_problem())
LIMITS = Limits(wall_s=60)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_tests_tells_right_from_wrong(kind: str) -> None:
    right, tests, wrong = KINDS[kind]
    packages = ("numpy",) if "numpy" in tests else ()
    verdict = check(right, tests, packages=packages, limits=LIMITS)
    assert verdict.passed, verdict.detail
    assert not check(wrong, tests, packages=packages, limits=LIMITS).passed


def test_what_the_attacks_attack_passes_a_right_program() -> None:
    verdict = check(RIGHT, SQUARE_TESTS, limits=LIMITS)
    assert verdict.passed, verdict.detail
    assert verdict.asserted >= 12


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_earns_nothing(name: str) -> None:
    program, tests = ATTACKS[name]
    verdict = check(program, tests, limits=Limits(wall_s=20))
    assert not verdict.passed
    assert verdict.share == 0.0
    assert verdict.detail


def test_the_next_program_is_judged_rightly_after_all_of_them() -> None:
    assert check(RIGHT, SQUARE_TESTS, limits=LIMITS).passed
    assert not check("def square_plus(x): return x", SQUARE_TESTS, limits=LIMITS).passed


def test_what_cannot_be_judged_from_outside_is_refused_by_name() -> None:
    animal = "class Animal:\n    def call(self): return self.name()\n"
    tests = "Base = Animal\nDog = type('Dog', (Base,), {'name': lambda self: 'x'})\nassert Dog().call() == 'x'"
    with pytest.raises(RewardError, match="derive a class from the program's Animal"):
        check(animal, tests, limits=LIMITS)


def test_tests_that_assert_nothing_pass_nobody() -> None:
    verdict = check("def f(): return 1", "f() == 2", limits=LIMITS)
    assert verdict.ending is Ending.FAILED
    assert "before they asserted anything" in verdict.detail


def test_the_share_of_tests_passed() -> None:
    program = "def f(x): return 2 if x < 3 else None"
    tests = "import pytest\n@pytest.mark.parametrize('x', [1, 2, 3])\ndef test_f(x): assert f(x) == 2\nassert f(0) == 2"
    verdict = check(program, tests, limits=LIMITS, share=True)
    assert (verdict.passed, verdict.share) == (False, 0.75)
    assert check(program, tests, limits=LIMITS).share == 0.0
    lost = "import os\ndef f(x):\n    if x == 2: os._exit(0)\n    return 2"
    assert check(lost, tests, limits=LIMITS, share=True).share == 0.5


def test_processor_time_decides_not_the_clock_on_the_wall() -> None:
    busy = "def f(x):\n    while True: pass"
    assert check(busy, "assert f(1) == 2", limits=Limits(wall_s=60, cpu_s=1)).ending is Ending.LIMIT
    patient = "import time\ndef f(x):\n    time.sleep(1.5)\n    return 2"
    assert check(patient, "assert f(1) == 2", limits=Limits(wall_s=60, cpu_s=1)).passed
