"""Rows that give inputs and outputs instead of test code: APPS, TACO, LiveCodeBench, DeepCoder and their like.

A row names a function (``fn_name``, ``func_name``) that is called, or its cases are standard input and output. Left
out: running them (``stdio``, ``check``).
"""

from __future__ import annotations

import ast
import base64
import io
import json
import pickle
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlpost.reward.score import RewardError

COLUMNS = ("input_output", "public_test_cases", "private_test_cases", "test_cases", "tests", "test", "test_list")
_NAMES = ("fn_name", "func_name", "function_name")
_CALLS = ("functional", "function_call", "call_based", "call", "function")
_CALL_TESTS = """
import json, math, pytest
_cases = json.loads({cases!r})

def _plain(value):
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {{str(key): _plain(item) for key, item in value.items()}}
    return value

def _same(ours, theirs):
    if isinstance(theirs, float) and isinstance(ours, (int, float)):
        return ours == theirs or math.isclose(ours, theirs, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(theirs, list):
        return isinstance(ours, list) and len(ours) == len(theirs) and all(map(_same, ours, theirs))
    if isinstance(theirs, dict):
        alike = isinstance(ours, dict) and ours.keys() == theirs.keys()
        return alike and all(_same(ours[key], theirs[key]) for key in theirs)
    return ours == theirs

@pytest.mark.parametrize("number", range(len(_cases)))
def test_case(number):
    given, accepted = _cases[number]
    ours = _plain(__function__(*given))
    assert any(_same(ours, _plain(one)) for one in accepted), (given, ours, accepted)
"""


@dataclass(frozen=True, slots=True)
class Cases:
    """Inputs and outputs.

    Attributes:
        function: the function that is called, or "" where the cases are standard input and output.
        pairs: standard input and the output wanted; or the arguments and a list of accepted results.
    """

    function: str
    pairs: list[tuple[Any, Any]]

    def tests(self) -> str:
        """Tests that call ``__function__``."""
        return _CALL_TESTS.format(cases=json.dumps(self.pairs))


def read_cases(task: Mapping[str, Any]) -> Cases | None:
    """The cases of a row; None where its tests are code.

    Raises:
        RewardError: the cases cannot be read, or there are none.
    """
    found: list[dict[str, Any]] = []
    for column in COLUMNS:
        found += _listed(column, task.get(column))
    if not found:
        return None
    names = [*(case.get(name) for case in found for name in _NAMES), *(task.get(name) for name in _NAMES), _named(task)]
    kinds = {str(case.get("testtype") or case.get("type") or "") for case in found}
    function = next((str(name) for name in names if name), "")
    if kinds & set(_CALLS) and not function:
        raise RewardError("the row's cases are calls, and it names no function: 'fn_name' or metadata.func_name")
    if kinds and kinds <= {"stdin", "stdin_stdout"}:
        function = ""
    pairs = [_call(case) if function else _text(case) for case in found]
    return Cases(function, _unwrapped(pairs) if function else pairs)


def _listed(column: str, value: Any) -> list[dict[str, Any]]:
    """Cases as ``{"input": ..., "output": ...}``, however they are written; none where the column holds code."""
    if isinstance(value, str):
        value = _decoded(value)
    if isinstance(value, Mapping) and "inputs" in value and "outputs" in value:
        inputs, outputs = _read(value["inputs"]), _read(value["outputs"])
        if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
            raise RewardError(f"the column '{column}' has not as many inputs as outputs")
        shared = {name: value[name] for name in (*_NAMES, "type", "testtype") if name in value}
        return [{"input": given, "output": wanted, **shared} for given, wanted in zip(inputs, outputs, strict=True)]
    if isinstance(value, Mapping) and "input" in value and "output" in value:
        return [dict(value)]
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        if all(isinstance(case, Mapping) for case in value):
            cases = [{**case, **_inner(case)} for case in value]
            if all("input" in case and "output" in case for case in cases):
                return cases
            raise RewardError(f"the column '{column}' has objects without 'input' and 'output': {str(value[0])[:80]}")
        if not all(isinstance(case, str) for case in value):
            raise RewardError(
                f"the column '{column}' is neither test code nor a list of {{'input': ..., 'output': ...}}: "
                f"{str(value[0])[:80]}"
            )
    return []


def _inner(case: Mapping[str, Any]) -> dict[str, Any]:
    metadata = _read(case.get("metadata"))
    return {name: metadata[name] for name in _NAMES if name in metadata} if isinstance(metadata, Mapping) else {}


def _named(task: Mapping[str, Any]) -> Any:
    metadata = _read(task.get("metadata"))
    return (
        next((metadata[name] for name in _NAMES if metadata.get(name)), None) if isinstance(metadata, Mapping) else None
    )


def _read(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _decoded(text: str) -> Any:
    """JSON, or LiveCodeBench's private cases: JSON text, pickled, compressed, in base 64."""
    if text.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    if len(text) > 20 and text[:2] == "eJ" and "\n" not in text.strip():
        try:
            return json.loads(_TextOnly(io.BytesIO(zlib.decompress(base64.b64decode(text)))).load())
        except (ValueError, zlib.error, pickle.UnpicklingError, TypeError):
            return text
    return text


class _TextOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no text")


def _text(case: Mapping[str, Any]) -> tuple[str, str]:
    return _joined(case["input"]), _joined(case["output"])


def _joined(value: Any) -> str:
    """APPS gives some texts as lists of lines."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _call(case: Mapping[str, Any]) -> tuple[list[Any], Any]:
    """Arguments as a list, or as LiveCodeBench's lines of JSON; the result as it is, or as JSON or Python text."""
    given, wanted = case["input"], case["output"]
    if isinstance(given, str):
        arguments = [_literal(line) for line in given.split("\n") if line.strip()]
        whole = _literal(given)
        given = whole if isinstance(whole, list) and len(arguments) == 1 and not _is_line(case) else arguments
    elif isinstance(given, Mapping):
        given = list(given.values())
    elif not isinstance(given, list):
        given = [given]
    return given, _literal(wanted) if isinstance(wanted, str) else wanted


def _is_line(case: Mapping[str, Any]) -> bool:
    """LiveCodeBench's cases are lines of JSON, an argument a line."""
    return case.get("testtype") == "functional"


def _literal(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return text


def _unwrapped(pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Each with the results it accepts: where all are lists of one, as APPS writes them, what is in them too."""
    wrapped = all(isinstance(wanted, list) and len(wanted) == 1 for _, wanted in pairs)
    return [(given, [wanted, wanted[0]] if wrapped else [wanted]) for given, wanted in pairs]
