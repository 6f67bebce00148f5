"""Code rewards: right programs pass, wrong ones and cheats do not, and each verdict says why."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rlpost.reward import sandbox
from rlpost.reward.code import Ending, check, extract_code, reward
from rlpost.reward.sandbox import Limits
from rlpost.reward.score import RewardError, Score
from tests.reward.cheats import CHEATS, TESTS

pytestmark = pytest.mark.skipif(sandbox.isolation() is None, reason=sandbox.isolation_problem())
LIMITS = Limits(wall_s=20)
SHORT = Limits(wall_s=1.5)
RIGHT = "def square_plus(x):\n    return x * x + 7\n"


def test_a_right_program_passes() -> None:
    verdict = check(RIGHT, TESTS, limits=LIMITS)
    assert (verdict.ending, verdict.detail, verdict.passed) == (Ending.PASSED, "", True)


def _marked(name: str) -> Any:
    """Those that run into the clock are for the full tier, but for one."""
    slow = _is_endless(name) and name != "an endless loop in a test"
    return pytest.param(name, marks=[pytest.mark.slow] if slow else [])


def _is_endless(name: str) -> bool:
    return "endless" in name


@pytest.mark.parametrize("name", [_marked(name) for name in CHEATS])
def test_a_cheat_does_not_pass(name: str) -> None:
    program = CHEATS[name]
    verdict = check(program, TESTS, limits=SHORT if _is_endless(name) else LIMITS)
    assert not verdict.passed
    assert verdict.detail


def test_the_next_program_is_judged_rightly_after_all_of_them() -> None:
    assert check(RIGHT, TESTS, limits=LIMITS).passed
    assert not check("def square_plus(x): return x", TESTS, limits=LIMITS).passed


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("def f(): return (1, [2, {3}], {'a': None})", "assert f() == (1, [2, {3}], {'a': None})"),
        ("def f(): return 2 ** 200, -(2 ** 60), 0.1, float('inf')", "assert f() == (2 ** 200, -(2 ** 60), 0.1, 1e999)"),
        ("def f(): return b'x', bytearray(b'y'), 1j, range(3)", "assert f() == (b'x', bytearray(b'y'), 1j, range(3))"),
        ("def f(x): return x", "x = float('nan'); assert f(x) != x"),
        ("def f(x): return x[0] is x[1]", "assert f([None, None])"),
        ("def f(x): return -x", "assert str(f(0.0)) == '-0.0'"),
        ("def f(): return '\\ud800\\x00'", "assert f() == '\\ud800\\x00'"),
        ("def f(): return [True, 1, 1.0]", "assert [type(x) for x in f()] == [bool, int, float]"),
        ("def f(): return (1,)", "assert f() != [1]"),
        (
            "from collections import *\ndef f(): return Counter('aab'), OrderedDict(a=1)",
            "assert f() == ({'a': 2, 'b': 1}, {'a': 1})",
        ),
        (
            "from collections import deque\ndef f(): return deque([1])",
            "from collections import deque\nassert f() == deque([1])",
        ),
        (
            "from fractions import *\ndef f(): return Fraction(1, 3)",
            "from fractions import *\nassert f() == Fraction(1, 3)",
        ),
        ("from decimal import *\ndef f(): return Decimal('1.10')", "import decimal\nassert str(f()) == '1.10'"),
        (
            "from datetime import *\ndef f(d): return d + timedelta(1)",
            "import datetime as t\nassert f(t.date(2024, 2, 28)) == t.date(2024, 2, 29)",
        ),
        ("def f(x):\n    yield from range(x)", "assert list(f(5)) == [0, 1, 2, 3, 4]"),
        (
            "import itertools\ndef f(): return itertools.count()",
            "import itertools\nassert list(itertools.islice(f(), 3)) == [0, 1, 2]",
        ),
        ("def f(x): return map(str, x)", "assert '2' in f([1, 2]) and tuple(f([1])) == ('1',)"),
        ("def f(x): x.sort(); x.append(9)", "a = [3, 1]\nassert f(a) is None\nassert a == [1, 3, 9]"),
        ("def f(d, s): d['k'] = 1; s.add(2)", "d, s = {}, set()\nf(d, s)\nassert (d, s) == ({'k': 1}, {2})"),
        ("def f(a, *, b=2, **c): return a, b, c", "assert f(1, b=3, z=4) == (1, 3, {'z': 4})"),
        ("def f(x): return x(3)", "assert f(str) == '3' and f(abs) == 3"),
        ("def f(): return int", "assert f() is int"),
        ("import math", "assert math.sqrt(4) == 2"),
        ("LIMIT = 5", "assert LIMIT == 5"),
        ("f = lambda x: lambda y: x + y", "assert f(1)(2) == 3"),
        ("f = lambda s: s", "f = f  # the tests' own name from here on\nassert f('a') == 'a'"),
        (
            "def f(x): return 1 // x",
            "try: f(0)\nexcept ZeroDivisionError as e: assert 'zero' in str(e)\nelse: assert False",
        ),
        (
            "class E(Exception): pass\ndef f(): raise E('mine')",
            "try: f(); x = 0\nexcept Exception as e: assert str(e) == 'mine' and type(e).__name__ == 'E'",
        ),
        (
            "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int",
            "assert P(3).x == 3",
        ),
        ("import sys\nprint('hello'); sys.stdout.write('x')\ndef f(): return 1", "assert f() == 1"),
        ("def f(): return 1\nif __name__ == '__main__':\n    f = None; input()", "assert f() == 1"),
        (
            "import multiprocessing as m\ndef f(n):\n    with m.Pool(2) as p: return p.map(abs, n)",
            "assert f([-1, -2]) == [1, 2]",
        ),
    ],
)
def test_honest_programs_pass(program: str, tests: str) -> None:
    verdict = check(program, tests, limits=LIMITS)
    assert verdict.passed, verdict.detail


def test_objects_of_the_program() -> None:
    program = """
class Node:
    def __init__(self, value): self.value, self.left = value, None
    def __len__(self): return 1 + (len(self.left) if self.left else 0)
    def __bool__(self): return True
    def __str__(self): return f"Node({self.value})"
    def __getitem__(self, i): return self.value + i
def top(node): return node
"""
    tests = """
root = Node(1)
root.left = Node(2)
assert root.left.value == 2 and len(root) == 2 and bool(root) and str(root) == "Node(1)" and root[4] == 5
assert top(root) == top(root) or True
assert Node(1) != Node(1)
"""
    verdict = check(program, tests, limits=LIMITS)
    assert verdict.passed, verdict.detail


@pytest.mark.parametrize(
    ("program", "ending", "says"),
    [
        ("def f(x): return x", Ending.FAILED, "assert f(1) == 2"),
        ("def f(x): return 1 / 0", Ending.FAILED, "ZeroDivisionError: division by zero"),
        ("", Ending.FAILED, "NameError: name 'f' is not defined"),
        ("def f(x: return 2", Ending.BROKEN, "SyntaxError"),
        ("1 / 0", Ending.BROKEN, 'File "<program>", line 1'),
        ("import sys; sys.exit(0)", Ending.BROKEN, "left before the tests"),
        ("import os\ndef f(x): os._exit(0)", Ending.BROKEN, "left in the middle"),
        ("while True: pass", Ending.TIMEOUT, ""),
        ("def f(x):\n    while True: pass", Ending.TIMEOUT, ""),
        ("x = bytearray(10**11)", Ending.LIMIT, "MemoryError"),
        ("while True: print('x' * 10000)", Ending.LIMIT, ""),
    ],
)
def test_endings(program: str, ending: Ending, says: str) -> None:
    verdict = check(program, "assert f(1) == 2", limits=SHORT if ending is Ending.TIMEOUT else LIMITS)
    assert verdict.ending is ending, verdict
    assert says in verdict.detail


def test_tests_that_do_not_end_are_a_timeout() -> None:
    assert check(RIGHT, "while True: pass", limits=SHORT).ending is Ending.TIMEOUT
    assert check(RIGHT, "assert square_plus(1) == 8", limits=LIMITS).passed


def test_the_preludes_names_win_but_for_those_named() -> None:
    program = "def helper(x): return 0\ndef f(x): return 5"
    prelude = "def helper(x): return x\ndef f(x): ..."
    assert check(program, "assert helper(3) == 3", prelude=prelude, names=["f"], limits=LIMITS).passed
    assert check(program, "assert f(1) == 5", prelude=prelude, names=["f"], limits=LIMITS).passed
    assert not check(program, "assert f(1) == 5", prelude=prelude, limits=LIMITS).passed
    assert check("def sum(a, b): return a + b", "assert sum(1, 2) == 3", names=["sum"], limits=LIMITS).passed
    assert not check("def sum(a, b): return a + b", "assert sum(1, 2) == 3", limits=LIMITS).passed


def test_tests_do_not_see_each_others_names() -> None:
    assert check(RIGHT, "import math; leftover = 1; assert square_plus(leftover) == 8", limits=LIMITS).passed
    assert not check(RIGHT, "assert leftover == 1", limits=LIMITS).passed


def test_threads() -> None:
    with ThreadPoolExecutor(4) as pool:
        passed = list(pool.map(lambda i: check(f"f = lambda: {i % 2}", "assert f()", limits=LIMITS).passed, range(8)))
    assert passed == [False, True] * 4


HUMANEVAL = {
    "prompt": 'import math\n\ndef helper(x):\n    return x * 2\n\ndef area(r):\n    """Area of a circle."""\n',
    "entry_point": "area",
    "test": "def check(candidate):\n    assert math.fabs(candidate(helper(1)) - 4 * math.pi) < 1e-9\n",
}
MBPP = {
    "code": "class Pair: ...\ndef max(a):\n    ...",
    "test_list": ["assert max([Pair(2)]) == 2", "assert max([Pair(1), Pair(3)]) == 3"],
    "test_setup_code": "",
    "test_imports": ["import math"],
}
PAIR = "class Pair:\n    def __init__(self, a): self.a = a\n"


@pytest.mark.parametrize(
    ("completion", "task", "passes"),
    [
        ("    return math.pi * r ** 2\n", HUMANEVAL, True),
        ("Here:\n```python\ndef area(r):\n    return math.pi * r * r\n```\nDone.", HUMANEVAL, True),
        ("```\ndef area(r):\n    return math.pi * r * r\n```", HUMANEVAL, True),
        ("```python\n    return math.pi * r * r\n```", HUMANEVAL, True),
        ("    return math.pi * helper(r) * r / 2\n", HUMANEVAL, True),
        ("    return math.pi * r\n", HUMANEVAL, False),
        ("    pass\n", HUMANEVAL, False),
        ("", HUMANEVAL, False),
        ("def helper(x): return 0\ndef area(r): return 0.0", HUMANEVAL, False),
        (f"```python\n{PAIR}def max(a):\n    return sorted(p.a for p in a)[-1]\n```", MBPP, True),
        (f"```python\n{PAIR}def max(a):\n    return 2\n```", MBPP, False),
        ("I cannot do this.", MBPP, False),
    ],
)  # fmt: skip
def test_rows(completion: str, task: dict[str, object], passes: bool) -> None:
    score = reward(completion, task)
    assert score.reward == float(passes)
    assert score.solved is passes
    assert set(score.parts) == {"broken", "stopped"}


def test_parts() -> None:
    task = {"test_list": ["assert f() == 1"]}
    assert reward("def f(): return 2", task) == Score(0.0, {"broken": 0.0, "stopped": 0.0})
    assert reward("def f( return 2", task) == Score(0.0, {"broken": 1.0, "stopped": 0.0})
    assert reward("x = bytearray(10**11)", task) == Score(0.0, {"broken": 0.0, "stopped": 1.0})


@pytest.mark.parametrize(
    ("task", "says"), [({}, "no column 'test_list'"), ({"test_list": []}, "empty"), ({"test": " "}, "empty")]
)
def test_rows_without_tests_are_errors(task: dict[str, object], says: str) -> None:
    with pytest.raises(RewardError, match=says):
        reward("x = 1", task)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x = 1", "x = 1"),
        ("```python\nx = 1\n```", "x = 1\n"),
        ("a\n```python\nx = 1\n```\nb\n```python\nx = 2\n```\n", "x = 2\n"),
        ("```bash\npip\n```\n```python\nx = 1\n```\n```text\nout\n```", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```Python title\nx = 1\n```", "x = 1\n"),
        ("```python\nx = 1", "x = 1\n"),
        ("  ```python\n  x = 1\n  ```", "x = 1\n"),
    ],
)
def test_extract_code(text: str, code: str) -> None:
    assert extract_code(text) == code
