"""From rows as the benchmarks publish them to the columns that prompts and rewards use.

One small function a format. Each raises KeyError for a column that is missing and ValueError for one that is unsound;
whoever reads the rows adds file and line. Left out: HumanEval+ and MBPP+ in EvalPlus' own form (evalplus.py).
"""

from __future__ import annotations

from typing import Any

from rlpost.eval.benchmark import Row
from rlpost.reward.math.extract import boxed


def first(row: Row, *names: str) -> Any:
    """The first of these columns that the row has, and that is not empty.

    Raises:
        KeyError: none of them; its argument names the first.
    """
    for name in names:
        if row.get(name) not in (None, "", []):
            return row[name]
    raise KeyError(" or ".join(names))


def text(row: Row, *names: str) -> str:
    """The same, where the column must be a text.

    Raises:
        ValueError: it is something else.
    """
    value = first(row, *names)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"the column '{next(n for n in names if row.get(n) == value)}' is not a text: {value!r:.60}")
    return value


def gsm8k(row: Row) -> Row:
    """``question``, and ``answer``: a worked solution with the number after ``####``."""
    answer = text(row, "answer")
    work, mark, number = answer.rpartition("####")
    if not mark or not number.strip():
        raise ValueError("the column 'answer' has no number after '####'")
    return {"question": text(row, "question"), "answer": number.strip(), "solution": work.strip()}


def mathematics(row: Row) -> Row:
    """MATH, AIME, AMC, Minerva: a problem, and its answer or a solution with the answer in a box."""
    question = text(row, "problem", "Problem", "question")
    solution = str(row.get("solution") or row.get("Solution") or "")
    answer = row.get("answer", row.get("Answer"))
    if answer is None or not str(answer).strip():
        answer = _boxed(solution)
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)  # AMC's are stored as 27.0
    return {"question": question, "answer": str(answer).strip(), "solution": solution}


def _boxed(solution: str) -> str:
    answer = boxed(solution)
    if not answer:
        raise KeyError("answer (or a solution with \\boxed)")
    return answer


def olympiad(row: Row) -> Row:
    """OlympiadBench's open-ended questions: ``final_answer`` is a list of LaTeX texts."""
    answers = first(row, "final_answer", "answer")
    answers = [answers] if isinstance(answers, str) else answers
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise ValueError(f"the column 'final_answer' is not a list of texts: {answers!r:.60}")
    joined = ", ".join(answer.strip().strip("$").strip() for answer in answers)
    return {"question": text(row, "question", "problem"), "answer": joined, "solution": ""}


def svamp(row: Row) -> Row:
    """``Body`` and ``Question``, answered by the number ``Answer``."""
    answer = first(row, "Answer")
    number = float(answer)
    body = text(row, "Body").strip()
    body = body if body.endswith((".", "!", "?", ",")) else f"{body}."
    plain = str(int(number)) if number.is_integer() else str(answer)
    return {"question": f"{body} {text(row, 'Question').strip()}", "answer": plain, "solution": plain}


def humaneval(row: Row) -> Row:
    """``prompt`` (a function's head), ``entry_point`` and ``test``; HumanEval+ has the same three. ``head`` is the
    prompt without its last newline, after which models do not go on with an indented line."""
    kept = {name: text(row, name) for name in ("prompt", "entry_point", "test")}
    return {**kept, "head": kept["prompt"].rstrip(), "solution": str(row.get("canonical_solution") or "")}


def mbpp(row: Row) -> Row | None:
    """``text`` (or ``prompt``), ``test_list`` and ``code``; of the full file, ids 11 to 510 are the test split."""
    if "text" in row and not 11 <= int(first(row, "task_id")) <= 510:
        return None
    return mbpp_any(row)


def mbpp_any(row: Row) -> Row:
    """The same, of any split."""
    tests = first(row, "test_list")
    if not isinstance(tests, list) or not all(isinstance(test, str) for test in tests):
        raise ValueError(f"the column 'test_list' is not a list of texts: {tests!r:.60}")
    return {
        "text": text(row, "text", "prompt").strip(),
        "test_list": tests,
        "tests": "\n".join(tests),
        "first_test": tests[0],
        "test_setup_code": row.get("test_setup_code") or "",
        "test_imports": row.get("test_imports") or [],
        "code": text(row, "code"),
        "solution": text(row, "code").replace("\r\n", "\n"),
    }


def countdown(row: Row) -> Row:
    """``nums`` and ``target`` (TinyZero's), ``numbers`` and ``target``, or d1's ``input`` "3,5,7" and ``output``."""
    if "input" in row:
        numbers, target = [int(number) for number in text(row, "input").split(",")], int(first(row, "output"))
    else:
        numbers, target = [int(number) for number in first(row, "nums", "numbers")], int(first(row, "target"))
    return {"numbers": numbers, "target": target}


def sudoku(row: Row) -> Row:
    """``puzzle`` and ``solution`` (d1's file writes ``Puzzle`` and ``Solution``): 16 digits, 0 where empty."""
    grids = {name: str(first(row, name, name.capitalize())).zfill(16) for name in ("puzzle", "solution")}
    for name, grid in grids.items():
        if len(grid) != 16 or not set(grid) <= set("01234"):
            raise ValueError(f"the column '{name}' is not 16 digits from 0 to 4: {grid!r:.60}")
    return grids
