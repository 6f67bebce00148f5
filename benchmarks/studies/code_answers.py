"""How many right programs are found in answers as chat models write them: rlpost bench code_answers --data FOLDER.

Takes the reference solutions of EvalPlus' release files (HumanEvalPlus.jsonl.gz, MbppPlus.jsonl.gz in FOLDER), writes
each in every style, and compares the function that is taken out with the reference, as syntax trees. Left out: running
them.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlpost.eval.evalplus import humaneval_plus, mbpp_plus
from rlpost.reward.code.extract import extract_code, parsed
from rlpost.reward.code.rows import assemble, read_tests

_F = "```"
STYLES: dict[str, Callable[[str, str], str]] = {
    "one block": lambda code, name: f"Here is it:\n\n{_F}python\n{code}\n{_F}\n\nIt works.",
    "no language": lambda code, name: f"{_F}\n{code}\n{_F}",
    "block, then usage": lambda code, name: f"{_F}python\n{code}\n{_F}\nUsage:\n{_F}python\nprint({name})\n{_F}",
    "block, then output": lambda code, name: f"{_F}\n{code}\n{_F}\nOutput:\n{_F}\n4\n{_F}",
    "block, then tests": lambda code, name: f"{_F}python\n{code}\n{_F}\n{_F}python\nassert {name}(1) == 2\n{_F}",
    "draft, then block": lambda code, name: (
        f"{_F}python\ndef {name}(*a):\n    pass\n{_F}\nBetter:\n{_F}python\n{code}\n{_F}"
    ),
    "thought, then block": lambda code, name: (
        f"<think>\n{_F}python\ndef {name}(*a): pass\n{_F}\n</think>\n{_F}python\n{code}\n{_F}"
    ),
    "shell, then block": lambda code, name: f"{_F}bash\npip install x\n{_F}\n{_F}python\n{code}\n{_F}",
    "never closed": lambda code, name: f"Sure.\n{_F}python\n{code}",
    "only closed": lambda code, name: f"{code}\n{_F}\nThis is it.",
    "tildes": lambda code, name: f"~~~python\n{code}\n~~~",
    "in a list": lambda code, name: (
        f"1. Code:\n{textwrap.indent(f'{_F}python{chr(10)}{code}{chr(10)}{_F}', '   ', bool)}"
    ),
    "words on the fence's line": lambda code, name: f"Answer: {_F}python\n{code}\n{_F}",
    "closed on its last line": lambda code, name: f"{_F}python\n{code.rstrip()}{_F}",
    "words, no fence": lambda code, name: f"Here is the function:\n\n{code}\n\nIt returns what is asked.",
    "code alone": lambda code, name: code,
    "future import": lambda code, name: f"{_F}python\nfrom __future__ import annotations\n{code}\n{_F}",
    "byte-order mark, CRLF": lambda code, name: f"\ufeff{_F}python\n{code}\n{_F}".replace("\n", "\r\n"),
}


def main() -> None:
    """Print a line a style: found of all, for each benchmark."""
    options = argparse.ArgumentParser()
    options.add_argument("--data", type=Path, required=True)
    folder = options.parse_args().data
    rows = {
        "HumanEval+": [humaneval_plus(row) for row in _read(folder / "HumanEvalPlus.jsonl.gz")],
        "MBPP+": [mbpp_plus(row) for row in _read(folder / "MbppPlus.jsonl.gz")],
    }
    print(f"| answer | {' | '.join(f'{name}, of {len(found)}' for name, found in rows.items())} |\n|---|---|---|")
    for style, write in STYLES.items():
        print(f"| {style} | {' | '.join(str(sum(_found(row, write) for row in kept)) for kept in rows.values())} |")


def _read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


def _found(row: dict[str, Any], write: Callable[[str, str], str]) -> bool:
    solution = (row.get("prompt") or "") + row["solution"]
    tests = read_tests({**row, "test": "def check(f):\n    assert f"})
    code = extract_code(write(solution, row["entry_point"]), tests.wanted, tests.prelude)
    return _function(assemble(code, tests.prelude, tests.wanted), row) == _function(solution, row) is not None


def _function(program: str, row: dict[str, Any]) -> str | None:
    tree = parsed(program)
    named = [node for node in tree.body if getattr(node, "name", "") == row["entry_point"]] if tree else []
    return ast.dump(named[-1]) if named else None


if __name__ == "__main__":
    main()
