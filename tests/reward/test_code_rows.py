"""Rows of code data sets: each known shape runs, rows that pay for nothing are refused, answers are found."""

from __future__ import annotations

from typing import Any

import pytest

from rlpost.reward import sandbox
from rlpost.reward.code import examine, extract_code, reward
from rlpost.reward.code.stdio import judge_cases, same_output
from rlpost.reward.functions import load_reward
from rlpost.reward.score import RewardError
from tests.reward.code_rows import ROWS, SILENT

pytestmark = pytest.mark.skipif(sandbox.isolation() is None, reason=sandbox.isolation_problem())
F = "```"
GOOD = "def add_one(x):\n    return x + 1\n"
LIST = {"test_list": ["assert add_one(1) == 2"], "code": "def add_one(x):\n    return x+1"}
HEAD = {
    "entry_point": "add_one",
    "prompt": 'def add_one(x: int) -> int:\n    """Plus one."""\n',
    "test": "def check(candidate):\n    assert candidate(1) == 2\n",
}


@pytest.mark.parametrize("shape", ROWS)
def test_a_row_of_each_shape(shape: str) -> None:
    row = ROWS[shape]
    examine([row.task])
    assert reward(f"Sure:\n{F}python\n{row.right}{F}\nDone.", row.task).reward == 1.0
    assert reward(f"{F}python\n{row.wrong}{F}", row.task).reward == 0.0
    assert reward("", row.task).reward == 0.0


@pytest.mark.parametrize("name", SILENT)
def test_a_row_that_pays_for_nothing_is_refused(name: str) -> None:
    with pytest.raises(RewardError, match=r"row 1: .*1 of 2 rows"):
        examine([LIST, SILENT[name]])
    for answer in ("", "def add_one(x):\n    return x\n"):
        try:
            assert reward(answer, SILENT[name]).reward == 0.0
        except RewardError:
            continue


def test_options_of_the_reward() -> None:
    task = {"test_list": ["assert f(1) == 1", "assert f(2) == 3"]}
    shared = load_reward({"function": "code", "share": True})
    assert shared("def f(x): return x", task, "t").reward == 0.5
    with pytest.raises(RewardError, match="takes no option 'partial'; it takes: share, packages, memory_mib"):
        load_reward({"function": "code", "partial": True})
    with pytest.raises(RewardError, match="'no_such_package', which is not installed"):
        load_reward({"function": "code", "packages": ["no_such_package"]}).check([task])
    without = load_reward({"function": "code", "packages": []})
    numpy = "import numpy\ndef f(x): return x + (x == 2)"
    assert without(numpy, task, "t").parts["broken"] == 1.0
    assert load_reward("code")(numpy, task, "t").reward == 1.0


@pytest.mark.parametrize("task", [LIST, HEAD], ids=["list", "head"])
@pytest.mark.parametrize(
    "text",
    [
        f"{F}python\n{GOOD}{F}\nExample:\n{F}python\nprint(add_one(3))\n{F}",
        f"{F}python\n{GOOD}{F}\nInstall it:\n{F}bash\npip install x\n{F}",
        f"{F}\n{GOOD}{F}\nOutput:\n{F}\n4\n{F}",
        f"Draft:\n{F}python\ndef add_one(x):\n    return x\n{F}\nBetter:\n{F}python\n{GOOD}{F}",
        f"{F}python\n{GOOD}{F}\nA test:\n{F}python\nfrom x import add_one\ndef test_it(: pass\n{F}",
        f"Here:\n{F}python\n{GOOD}",
        f"{GOOD}{F}\nThis adds one.",
        f"{F}python\n{GOOD.rstrip()}{F}",
        f"Answer: {F}python\n{GOOD}{F}",
        f"~~~python\n{GOOD}~~~",
        f"{F}{F}python\n{GOOD}{F}{F}",
        f"Here is the function:\n\n{GOOD}",
        f"{GOOD}\nThis function returns x plus one.",
        f"Well, (first) it's easy:\n\nimport math\n\n{GOOD}\nThat's it, isn't it?",
        f"1. Code:\n   {F}python\n   def add_one(x):\n       return x + 1\n   {F}",
        f'{F}python\ndef add_one(x):\n    """\n    {F}\n    add_one(1)\n    {F}\n    """\n    return x + 1\n{F}',
        f"<think>\n{F}python\ndef add_one(x):\n    return x\n{F}\n</think>\n{F}python\n{GOOD}",
        f"Hm.</think>\n{GOOD}",
        f"{F}python\nfrom __future__ import annotations\n{GOOD}{F}",
        f"{F}python\nimport numpy as np\n{GOOD}{F}",
        f"{F}python\nadd_one = lambda x: x + 1\n{F}",
        f"\ufeff{GOOD}",
        f"{F}python\n{GOOD}{F}".replace("\n", "\r\n"),
        f"{F}python title='a.py'\n{GOOD}{F}",
        f"{F}Python3\n{GOOD}{F}",
        f"{F}python\n{GOOD}\nif __name__ == '__main__':\n    print(add_one(int(input())))\n{F}",
    ],
)  # fmt: skip
def test_a_right_program_is_found(text: str, task: dict[str, Any]) -> None:
    score = reward(text, task)
    assert score.reward == 1.0, extract_code(text, ["add_one"])


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\n{F}python\n{GOOD}{F}",
        f"{F}python\n{GOOD}{F}\nNo, rather:\n{F}python\ndef add_one(x):\n    return x\n{F}",
        "I would add one.",
        f"{F}bash\nadd_one\n{F}",
        "",
    ],
)
def test_what_is_no_answer_or_a_wrong_one(text: str) -> None:
    assert reward(text, LIST).reward == 0.0


def test_a_prompts_body_is_gone_on_with() -> None:
    assert reward("    return x + 1\n", HEAD).reward == 1.0
    assert reward(f"{F}python\n    return x + 1\n{F}", HEAD).reward == 1.0
    assert reward("    return x\n", HEAD).reward == 0.0


@pytest.mark.parametrize(
    ("written", "wanted", "same"),
    [
        ("1 2\n3\n", "1 2\n3", True),
        ("1 2 \n3\n\n", "1 2\n3\n", True),
        ("1  2", "1 2", True),
        ("0.3333333", "0.33333333333", True),
        ("0.33", "0.33333333333", False),
        ("1.0", "1", True),
        ("1.0000001", "1", False),
        ("yes", "Yes", False),
        ("1\n2", "1 2", False),
        ("", "1", False),
        ("1 2 3", "1 2", False),
        ("nan", "0.5", False),
        ("inf", "1e5", False),
    ],
)
def test_outputs_are_compared_as_the_field_does(written: str, wanted: str, same: bool) -> None:
    assert same_output(written, wanted) is same


@pytest.mark.parametrize(
    "program",
    [
        "import sys\nsys.stdout.write(sys.stdin.readline())",
        "import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read())",
        "import os\nos.write(1, os.read(0, 100))",
        "print(open(0).read())",
        "import atexit\natexit.register(lambda: print(input()))",
        "import sys\nprint(input())\nsys.exit(0)",
        "def main():\n    print(input())\nif __name__ == '__main__':\n    main()",
        "import threading\nt = threading.Thread(target=lambda: print(input()))\nt.start()",
    ],
)
def test_ways_to_read_and_write(program: str) -> None:
    verdict = judge_cases(program, [("42\n", "42"), ("7\n", "7\n")])
    assert verdict.passed, verdict.detail


@pytest.mark.parametrize(
    "program",
    [
        "",
        "print(42)",
        "import sys\nprint(input())\nsys.exit(1)",
        "import os\nprint(input(), flush=True)\nos.kill(os.getpid(), 9)",
        "import os, struct, json\nfor fd in range(3, 30):\n    try: os.write(fd, b'x' * 64)\n    except OSError: pass",
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
        "print(input()\n",
        "print(input())\n1 / 0",
    ],
)
def test_wrong_ways(program: str) -> None:
    assert not judge_cases(program, [("42\n", "42"), ("7\n", "7\n")]).passed
