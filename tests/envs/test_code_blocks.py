"""What is run of a turn: shapes of Markdown as models write it."""

from __future__ import annotations

import pytest

from rlpost.envs.code_blocks import code_blocks

FENCE, TILDES = "```", "~~~"
SHAPES: dict[str, tuple[str, list[str]]] = {
    "one block": (f"a\n{FENCE}python\nx = 1\n{FENCE}", ["x = 1"]),
    "py": (f"{FENCE}py\nx\n{FENCE}", ["x"]),
    "capitals and a number": (f"{FENCE}Python3\nx\n{FENCE}", ["x"]),
    "no language": (f"{FENCE}\nx = 1\n{FENCE}", ["x = 1"]),
    "marked and bare": (f"{FENCE}py\nx\n{FENCE}\n{FENCE}\ny\n{FENCE}", ["x", "y"]),
    "marked, and what it will print": (f"{FENCE}python\nx\n{FENCE}\nprints\n{FENCE}\nAda: 5 $\n{FENCE}", ["x"]),
    "json first, prose, then Python": (
        f'{FENCE}json\n{{"a": 1}}\n{FENCE}\nNow I do it.\n{FENCE}python\nx = 1\n{FENCE}',
        ["x = 1"],
    ),
    "Python, prose, then json": (f"{FENCE}python\nx\n{FENCE}\nso\n{FENCE}json\n[1]\n{FENCE}\nend", ["x"]),
    "bash only": (f"{FENCE}bash\nls\n{FENCE}\nprose", []),
    "bash and Python": (f"{FENCE}bash\npip install x\n{FENCE}\n{FENCE}python\nx\n{FENCE}", ["x"]),
    "a language with a title": (f"{FENCE}sql title=q\nselect 1\n{FENCE}\nprose", []),
    "several Python blocks": (f"{FENCE}python\nx\n{FENCE}\nthen\n{FENCE}python\ny\n{FENCE}", ["x", "y"]),
    "never closed": (f"{FENCE}python\nx = '''a'''\ny", ["x = '''a'''\ny"]),
    "another language, never closed": (f"{FENCE}json\n[1,\n", []),
    "no block": ("no code", []),
    "code in a line": ("call `x()` now", []),
    "an empty block": (f"{FENCE}python\n{FENCE}\nprose", []),
    "an empty block before another": (f"{FENCE}python\n\n{FENCE}\nthen\n{FENCE}python\nx\n{FENCE}", ["x"]),
    "code on the opening line": (f"{FENCE}python x = 1\ny = 2\n{FENCE}", ["x = 1\ny = 2"]),
    "code on the opening line, no language": (f"{FENCE}x = f(1)\ny = 2\n{FENCE}", ["x = f(1)\ny = 2"]),
    "the closing fence on the code's line": (f"{FENCE}python\nx = 1\nprint(x){FENCE}\nprose", ["x = 1\nprint(x)"]),
    "all on one line": (f"So: {FENCE}python print(1){FENCE} and on.", ["print(1)"]),
    "text before the fence": (f"My code: {FENCE}python\nx\n{FENCE}", ["x"]),
    "an indented closing fence": (f"{FENCE}python\nx\n  {FENCE}\nprose\n{FENCE}json\n1\n{FENCE}", ["x"]),
    "in a list, indented": (f"1. do\n   {FENCE}python\n   if x:\n       y\n   {FENCE}\n2. done", ["if x:\n    y"]),
    "tildes": (f"{TILDES}python\nx\n{TILDES}", ["x"]),
    "a longer fence around fences": (f"{FENCE}`python\ns = 1 # {FENCE}\n{FENCE}`", [f"s = 1 # {FENCE}"]),
    "fences in a text of the code": (
        f'{FENCE}python\ns = """\n{FENCE}\nx\n{FENCE}\n"""\nprint(s)\n{FENCE}\nprose',
        [f's = """\n{FENCE}\nx\n{FENCE}\n"""\nprint(s)'],
    ),
    "closed and opened at once": (f"{FENCE}python\nx\n{FENCE}python\ny\n{FENCE}", ["x", "y"]),
    "words after the closing fence": (f"{FENCE}python\nx\n{FENCE} This prints x.\nprose", ["x"]),
    "braces around the language": (f"{FENCE}{{.python}}\nx\n{FENCE}", ["x"]),
    "carriage returns": (f"{FENCE}python\r\nx\r\ny\r\n{FENCE}\r\n", ["x\ny"]),
    "wrong Python": (f"{FENCE}python\nx = (\n{FENCE}\nprose", ["x = ("]),
    "a lone closing fence": (f"x = 1\n{FENCE}", []),
}


@pytest.mark.parametrize("name", list(SHAPES))
def test_shape(name: str) -> None:
    text, blocks = SHAPES[name]
    assert code_blocks(text) == blocks


def test_a_turn_of_many_fences_takes_no_time() -> None:
    assert code_blocks("```python\n'''\n" + "```\n" * 3000) != []
