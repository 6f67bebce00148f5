"""One row of each shape that code data sets have, with a right answer and a wrong one. The rows are made up here."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A row and its answers."""

    task: dict[str, Any]
    right: str
    wrong: str


_ECHO = "import sys\nfor line in sys.stdin.read().split()[1:]:\n    print(int(line) * 2)\n"
_WRONG = "import sys\nfor line in sys.stdin.read().split()[1:]:\n    print(int(line))\n"
_PAIR = "class Solution:\n    def pair(self, xs, k):\n        return [x for x in xs if x == k] or None\n"
_NODES = """from typing import *
import collections
class ListNode:
    def __init__(self, val=0, next=None):
        self.val = val
        self.next = next
def list_node(values):
    head = None
    for value in reversed(values):
        head = ListNode(value, head)
    return head
def is_same_list(a, b):
    while a and b and a.val == b.val:
        a, b = a.next, b.next
    return a is None and b is None
"""
_REVERSE = """class Solution:
    def reverse(self, head: Optional[ListNode]) -> Optional[ListNode]:
        last = None
        while head:
            head.next, last, head = last, head, head.next
        return last
"""


def _private(cases: list[dict[str, str]]) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


_STDIN = [{"input": "2\n1\n2\n", "output": "2\n4\n", "testtype": "stdin"}]
_CALLS = [
    {"input": "[1, 2, 2]\n2", "output": "[2, 2]", "testtype": "functional"},
    {"input": "[true]\n3", "output": "null", "testtype": "functional"},
]
ROWS: dict[str, Row] = {
    "KodCode": Row(
        {
            "question": "Add one.",
            "solution": "def add_one(x):\n    return x + 1",
            "test": "from solution import add_one\nimport pytest\n\ndef test_small():\n    assert add_one(1) == 2\n\n"
            "@pytest.mark.parametrize('x, y', [(5, 6), (-1, 0)])\ndef test_more(x, y):\n    assert add_one(x) == y\n\n"
            "def test_text():\n    with pytest.raises(TypeError):\n        add_one('a')\n",
            "test_info": [{"function_name": "add_one"}],
        },
        "def add_one(x):\n    return x + 1",
        "def add_one(x):\n    return 2",
    ),
    "unittest": Row(
        {"test": "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): self.assertEqual(add_one(1), 2)\n"
         "if __name__ == '__main__':\n    unittest.main()\n"},
        "def add_one(x): return x + 1",
        "def add_one(x): return x",
    ),
    "asserts under a main guard": Row(
        {"test": "def run():\n    assert add_one(1) == 2\nif __name__ == '__main__':\n    run()\n    print('ok')\n"},
        "def add_one(x): return x + 1",
        "def add_one(x): return x",
    ),
    "plain asserts beside an entry point": Row(
        {"entry_point": "add_one", "prompt": "Write it.", "test": "assert add_one(1) == 2\nassert add_one(3) == 4"},
        "def add_one(x): return x + 1",
        "def add_one(x): return 2",
    ),
    "a unittest beside an entry point": Row(
        {
            "entry_point": "task_func",
            "prompt": "import math\ndef task_func(x):\n    \"\"\"The square root.\"\"\"\n",
            "test": "import unittest\nclass TestCases(unittest.TestCase):\n    def test_a(self):\n"
            "        self.assertAlmostEqual(task_func(2), 1.4142135, places=5)\n",
        },
        "    return math.sqrt(x)\n",
        "    return x\n",
    ),
    "a method of Solution, with nodes": Row(
        {
            "entry_point": "Solution().reverse",
            "prompt": _NODES,
            "test": "def check(candidate):\n"
            "    assert is_same_list(candidate(head=list_node([1, 2, 3])), list_node([3, 2, 1]))\n"
            "    assert is_same_list(candidate(head=list_node([])), list_node([]))\n",
        },
        _REVERSE,
        _REVERSE.replace("return last", "return head"),
    ),
    "test_list as JSON": Row(
        {"test_list": '["assert add_one(1) == 2", "assert add_one(2) == 3"]'},
        "def add_one(x): return x + 1",
        "def add_one(x): return 2",
    ),
    "check and a prompt, without an entry point": Row(
        {"prompt": "def add_one(x):\n    \"\"\"Plus one.\"\"\"\n", "test": "def check(f):\n    assert f(1) == 2\n"},
        "    return x + 1\n",
        "    return x\n",
    ),
    "LiveCodeBench, standard input": Row(
        {"public_test_cases": json.dumps(_STDIN), "private_test_cases": _private(_STDIN), "metadata": "{}"},
        _ECHO,
        _WRONG,
    ),
    "LiveCodeBench, calls": Row(
        {
            "public_test_cases": json.dumps(_CALLS[:1]),
            "private_test_cases": _private(_CALLS),
            "metadata": '{"func_name": "pair"}',
            "starter_code": "class Solution:\n    def pair(self, xs: List[int], k: int) -> List[int]:\n        ",
        },
        _PAIR,
        _PAIR.replace("or None", ""),
    ),
    "APPS, standard input": Row(
        {"input_output": json.dumps({"inputs": ["2\n1\n2\n", "1\n7\n"], "outputs": ["2\n4\n", "14"]})},
        _ECHO,
        _WRONG,
    ),
    "TACO, lists of lines": Row(
        {"input_output": json.dumps({"inputs": [["2", "1", "2"]], "outputs": [["2", "4"]]})},
        _ECHO,
        _WRONG,
    ),
    "APPS, calls": Row(
        {"input_output": '{"fn_name": "pair", "inputs": [[[1, 2], 2], [[true], 5]], "outputs": [[[2]], [null]]}'},
        _PAIR,
        _PAIR.replace("or None", ""),
    ),
    "DeepCoder, standard input": Row(
        {"tests": json.dumps([{"input": "1\n4\n", "output": "8\n", "type": "stdin_stdout"}])},
        "if __name__ == '__main__':\n    n = int(input())\n    for _ in range(n):\n        print(2 * int(input()))\n",
        _WRONG,
    ),
    "DeepCoder, calls": Row(
        {
            "tests": json.dumps(
                [{"fn_name": "flag", "type": "call_based", "input": [True, None], "output": [True, None, {"1": 0.5}]}],
            )
        },
        "def flag(a, b): return (a, b, {1: 0.1 + 0.4})",
        "def flag(a, b): return (a, b, {1: 0.4})",
    ),
    "inputs and outputs in one object": Row(
        {"tests": {"fn_name": "twice", "inputs": [[3], [4]], "outputs": [6, 8]}},
        "def twice(x): return 2 * x",
        "def twice(x): return 6",
    ),
}  # fmt: skip
SILENT: dict[str, dict[str, Any]] = {
    "no tests": {},
    "an empty list": {"test_list": []},
    "blank": {"test": " "},
    "None": {"test_list": [None]},
    "a comment": {"test": "# none yet\n"},
    "a comparison": {"test_list": ["add_one(1) == 2"]},
    "pairs": {"tests": [["1", "2"]]},
    "objects that are no cases": {"tests": [{"a": "1"}]},
    "a check that nobody calls": {"test": "def check(candidate):\n    assert candidate(1) == 2\n"},
    "a function that nobody calls": {"test": "def run():\n    assert add_one(1) == 2\n"},
    "a check that returns": {
        "entry_point": "add_one",
        "prompt": 'def add_one(x):\n    """Add one."""\n',
        "test": "def check(candidate):\n    return candidate(1) == 2\n",
    },
    "a check that asserts nothing of it": {
        "entry_point": "add_one",
        "prompt": 'def add_one(x):\n    """Add one."""\n',
        "test": "def check(candidate):\n    candidate(1)\n    assert True\n",
    },
    "an assertion of nothing": {"test_list": ["assert 1 + 1 == 2"]},
    "errors swallowed": {"test": "try:\n    assert add_one(1) == 2\nexcept Exception:\n    pass\n"},
    "a test that swallows": {"test": "def test_a():\n    try: assert add_one(1) == 2\n    except: print('failed')\n"},
    "all skipped": {"test": "import pytest\n@pytest.mark.skip\ndef test_a():\n    assert add_one(1) == 2\n"},
    "empty outputs": {"input_output": '{"inputs": ["1"], "outputs": [""]}'},
    "no cases": {"input_output": '{"inputs": [], "outputs": []}'},
    "more inputs than outputs": {"input_output": '{"inputs": ["1"], "outputs": []}'},
    "calls of no function": {"tests": [{"input": "[1]", "output": "2", "testtype": "functional"}]},
    "no Python": {"test": "assert add_one(1) = 2"},
    "a class of the program's to derive from": {
        "test": "class Dog(Animal):\n    def name(self): return 'x'\nassert Dog().call() == 'x'\n"
    },
}
