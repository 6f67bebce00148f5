"""One small row of each benchmark in the form it is published in, an answer that is right and one that is wrong.

The rows are made up here; only their form is the benchmarks'.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Case(NamedTuple):
    """``row`` as published; ``right`` and ``wrong`` answers under chat prompts; ``asks``: a part of the prompt."""

    bench: str
    row: dict[str, Any]
    right: str
    wrong: str
    asks: str


FUNCTION = {
    "task_id": "HumanEval/900",
    "prompt": 'def double(x: int) -> int:\n    """Twice x.\n    >>> double(2)\n    4\n    """\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate(2) == 4\n"
    "    assert candidate(-1) == -2\n",
}
PLUS_TEST = (
    "import numpy as np\n\ndef assertion(out, exp, atol):\n    if atol:\n        np.testing.assert_allclose(out, exp, "
    "rtol=1e-07, atol=atol)\n    else:\n        assert out == exp\n\n\ndef check(candidate):\n    inputs = [[2], [0], "
    "[10**20]]\n    results = [4, 0, 2 * 10**20]\n    for i, (inp, exp) in enumerate(zip(inputs, results)):\n"
    "        assertion(candidate(*inp), exp, 0)\n"
)
PROGRAM = {
    "task_id": 11,
    "text": "Write a function to remove the first letter of a word.",
    "code": "def tail(word): \r\n\treturn word[1:]",
    "test_list": ['assert tail("hello") == "ello"', 'assert tail("a") == ""', 'assert tail("ab") == "b"'],
    "test_setup_code": "",
    "challenge_test_list": [],
}
CASES = [
    Case(
        "gsm8k",
        {"question": "Ann has 3 bags of 7 nuts. How many?", "answer": "She has 3*7=<<3*7=21>>21 nuts.\n#### 1,021"},
        "So it is \\boxed{1021}.",
        "She has 21 nuts.",
        "3 bags of 7 nuts",
    ),
    Case(
        "svamp",
        {
            "ID": "chal-1",
            "Body": "Each pack of dvds costs 76 dollars. If there is a discount of 25 dollars on each pack",
            "Question": "How much do you have to pay to buy each pack?",
            "Equation": "( 76.0 - 25.0 )",
            "Answer": 51.0,
            "Type": "Subtraction",
        },
        "You pay \\boxed{51} dollars.",
        "101",
        "25 dollars on each pack. How much",
    ),
    Case(
        "math500",
        {
            "problem": "What is $\\frac{1}{4}+\\frac14$?",
            "solution": "It is $\\boxed{\\frac{1}{2}}$.",
            "answer": "\\frac{1}{2}",
            "subject": "Prealgebra",
            "level": 1,
            "unique_id": "test/prealgebra/1.json",
        },
        "\\boxed{0.5}",
        "\\boxed{0.25}",
        "\\frac14",
    ),
    Case(
        "math",
        {"problem": "Solve $x+1=3$.", "level": "Level 1", "type": "Algebra", "solution": "So $x=\\boxed{2}$."},
        "$x = \\boxed{2}$",
        "$x = \\boxed{3}$",
        "x+1=3",
    ),
    Case(
        "aime24",
        {"id": 60, "problem": "Find n.", "solution": "...", "answer": "033", "year": "2024"},
        "\\boxed{33}",
        "\\boxed{30}",
        "Find n.",
    ),
    Case("aime25", {"id": "0", "problem": "Find m.", "answer": "70"}, "\\boxed{070}", "\\boxed{71}", "Find m."),
    Case(
        "amc23",
        {"id": 0, "question": "How far?", "answer": 27.0, "url": ""},
        "The answer is 27.",
        "\\boxed{2.7}",
        "How far?",
    ),
    Case(
        "minerva", {"question": "Wavelength?", "answer": "4.5e33"}, "\\boxed{4.5e33}", "\\boxed{4.5e32}", "Wavelength?"
    ),
    Case(
        "olympiadbench",
        {
            "id": 1606,
            "question": "Find all pairs.",
            "solution": ["..."],
            "final_answer": ["$(2,2),(1,4)$"],
            "is_multiple_answer": True,
            "answer_type": "Tuple",
            "unit": None,
        },
        "\\boxed{(1,4),(2,2)}",
        "\\boxed{(2,2),(4,1)}",
        "all pairs",
    ),
    Case(
        "humaneval",
        FUNCTION,
        "```python\ndef double(x):\n    return x + x\n```",
        "```python\ndef double(x):\n    return x * x\n```",
        "Twice x.",
    ),
    Case(
        "humaneval+",
        {**FUNCTION, "test": PLUS_TEST},
        "```python\ndef double(x):\n    return x + x\n```",
        "```python\ndef double(x):\n    return 2 * x + (x > 9)\n```",
        "Twice x.",
    ),
    Case(
        "mbpp",
        PROGRAM,
        "```python\ndef tail(w):\n    return w[1:]\n```",
        "```python\ndef tail(w):\n    return w\n```",
        'assert tail("hello")',
    ),
    Case(
        "mbpp+",
        {
            "task_id": 2,
            "code": "def tail(word):\n    return word[1:]",
            "prompt": "Write a function to remove the first letter of a word.",
            "source_file": "x.ipynb",
            "test_imports": [],
            "test_list": ['assert tail("hello") == "ello"'],
            "test": "import numpy as np\n\ninputs = [['hello'], ['']]\nresults = ['ello', '']\nfor i, (inp, exp) in "
            "enumerate(zip(inputs, results)):\n    assert tail(*inp) == exp\n",
        },
        "```python\ndef tail(w):\n    return w[1:]\n```",
        "```python\ndef tail(w):\n    return w.replace(w[0], '')\n```",
        'assert tail("hello")',
    ),
    Case(
        "countdown",
        {"target": 98, "nums": [44, 19, 35]},
        "<answer>44 + 19 + 35</answer>",
        "<answer>98</answer>",
        "[44, 19, 35]",
    ),
    Case(
        "sudoku",
        {"Puzzle": "3102200002100320", "Solution": "3142243142131324"},
        "<answer>3142243142131324</answer>",
        "<answer>3142243142131342</answer>",
        "3102200002100320",
    ),
]
OTHER_FORMS = [
    Case(
        "countdown",
        {"input": "30,100,93", "output": "23"},
        "<answer>30 + 93 - 100</answer>",
        "<answer>23</answer>",
        "[30, 100, 93]",
    ),
    Case(
        "mbpp",
        {key: value for key, value in PROGRAM.items() if key != "text"} | {"prompt": PROGRAM["text"], "task_id": 900},
        "def tail(w): return w[1:]",
        "def tail(w): pass",
        "first letter",
    ),
    Case("amc23", {"id": 0, "problem": "How far?", "answer": "27"}, "\\boxed{27}", "\\boxed{28}", "How far?"),
    Case(
        "minerva",
        {"problem": "How heavy?", "solution": "It is $\\boxed{12}$ kg.", "type": "x", "idx": 1},
        "\\boxed{12}",
        "\\boxed{13}",
        "heavy",
    ),
    Case(
        "humaneval+",
        {key: value for key, value in FUNCTION.items() if key != "test"}
        | {"base_input": [[2]], "plus_input": [[10**20], [1.5]], "contract": "", "atol": 0},
        "def double(x):\n    return x + x\n",
        "def double(x):\n    return 2 * x + (x > 9)\n",
        "Twice x.",
    ),
    Case(
        "mbpp+",
        {
            "task_id": "Mbpp/2",
            "prompt": '"""\nWrite a function to find the shared elements.\n'
            'assert similar_elements((3, 4), (4, 3)) == (3, 4)\n"""\n',
            "entry_point": "similar_elements",
            "canonical_solution": "\ndef similar_elements(a, b):\n  return tuple(set(a) & set(b))\n",
            "base_input": [[[3, 4], [4, 3]]],
            "plus_input": [[[], [1]]],
            "atol": 0,
        },
        "def similar_elements(a, b):\n    return tuple(sorted((set(a) & set(b)), reverse=True))\n",
        "def similar_elements(a, b):\n    return tuple(set(a) | set(b))\n",
        "assert similar_elements",
    ),
]
