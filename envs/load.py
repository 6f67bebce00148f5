"""Tasks from a file or a Hugging Face data set: one row, one task.

JSON Lines, JSON (a list of objects), CSV and Parquet, the first three also gzipped. Left out: prompts and rewards
(what a row means is the environment's business), streaming, and images.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rlpost.envs.base import EnvError, Task

ID_COLUMNS = ("id", "task_id")
_FORMATS = (".jsonl", ".json", ".csv", ".parquet")

Row = tuple[str, dict[str, Any]]
"""Where a row stands, for messages, and its columns."""


def load_tasks(source: str | Path, split: str = "train") -> list[Task]:
    """All rows of ``source`` as tasks, in order; a row's columns are the task's ``data``.

    The task's id is the column ``id`` or ``task_id``, else the file's name and the row's number. The columns
    ``scenario``, ``difficulty`` and ``source``, where there, also fill the task's fields of these names.

    Args:
        source: path of a ``.jsonl``, ``.json``, ``.csv`` (these also ``.gz``) or ``.parquet`` file, or the name of a
            Hugging Face data set, ``owner/name`` or ``owner/name:configuration``.
        split: which split of a Hugging Face data set.

    Raises:
        EnvError: no such file or data set, a broken line (named), a repeated id, or no rows at all.
    """
    path = Path(source)
    name = path.name.split(".")[0] if path.is_file() else f"{str(source).split('/')[-1]}-{split}"
    tasks: list[Task] = []
    seen: dict[str, str] = {}
    for number, (where, row) in enumerate(load_rows(source, split)):
        task = _task(row, f"{name}-{number}", where)
        if task.id in seen:
            raise EnvError(f"{where}: the id '{task.id}' is also that of {seen[task.id]}; ids must be unique")
        seen[task.id] = where
        tasks.append(task)
    return tasks


def refuse(message: str) -> None:
    """What is done about a broken row unless a caller knows better.

    Raises:
        EnvError: always.
    """
    raise EnvError(message)


def load_rows(source: str | Path, split: str = "train", on_broken: Callable[[str], None] = refuse) -> list[Row]:
    """All rows of ``source``, in order, each with where it stands; arguments and errors as for ``load_tasks``.

    ``on_broken`` is told of every row that is no object, with file and line; where it returns, the row is skipped.
    """
    path = Path(source)
    if not path.is_file() and (_format(path) or path.is_dir()):
        raise EnvError(f"no data file {path.absolute()}")
    rows = list(_file_rows(path, on_broken) if path.is_file() else _hub_rows(str(source), split))
    if not rows:
        raise EnvError(f"{source} has no rows")
    return rows


def _task(row: dict[str, Any], default_id: str, where: str) -> Task:
    named = next((str(row[column]) for column in ID_COLUMNS if row.get(column) is not None), default_id)
    difficulty = row.get("difficulty", 0)
    if isinstance(difficulty, bool) or not isinstance(difficulty, int):
        difficulty = 0  # a word or a scale of the data set's own; it stays in ``data``
    return Task(
        id=named,
        data=row,
        scenario=_word(row.get("scenario")),
        difficulty=difficulty,
        source=_word(row.get("source")),
    )


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _format(path: Path) -> str:
    """``jsonl``, ``json``, ``csv`` or ``parquet`` by the file's name, or nothing."""
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    return suffixes[-1][1:] if suffixes and suffixes[-1] in _FORMATS else ""


def _file_rows(path: Path, on_broken: Callable[[str], None]) -> Iterator[Row]:
    kind = _format(path)
    try:
        if kind == "jsonl":
            yield from _jsonl_rows(path, on_broken)
        elif kind == "json":
            yield from _json_rows(path, on_broken)
        elif kind == "csv":
            yield from _csv_rows(path, on_broken)
        elif kind == "parquet":
            yield from _parquet_rows(path)
        else:
            raise EnvError(f"{path}: not a .jsonl, .json, .csv (these also .gz) or .parquet file")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise EnvError(f"cannot read {path}: {error}") from error


def _read(path: Path) -> str:
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()


def _jsonl_rows(path: Path, on_broken: Callable[[str], None]) -> Iterator[Row]:
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            on_broken(f"{where}: not JSON: {error.msg} at column {error.colno}")
            continue
        except (ValueError, RecursionError) as error:  # an integer of thousands of digits, levels without end
            on_broken(f"{where}: {error}")
            continue
        if isinstance(row, dict):
            yield where, row
        else:
            on_broken(f"{where}: an object is wanted, this is {type(row).__name__}")


def _json_rows(path: Path, on_broken: Callable[[str], None]) -> Iterator[Row]:
    try:
        rows = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise EnvError(f"{path}, line {error.lineno}: not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise EnvError(f"{path}: {error}") from None
    if not isinstance(rows, list):
        raise EnvError(
            f"{path}: a list of objects is wanted, this is {type(rows).__name__}; or use JSON Lines (.jsonl)"
        )
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        if isinstance(row, dict):
            yield where, row
        else:
            on_broken(f"{where}: an object is wanted, this is {type(row).__name__}")


def _csv_rows(path: Path, on_broken: Callable[[str], None]) -> Iterator[Row]:
    lines = csv.DictReader(io.StringIO(_read(path)), strict=True)
    try:
        for row in lines:
            where = f"{path}, line {lines.line_num}"
            if None in row or None in row.values():
                on_broken(f"{where}: not as many fields as the first line has")
            else:
                yield where, row
    except csv.Error as error:
        raise EnvError(f"{path}, line {lines.line_num}: not CSV: {error}") from None


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise EnvError(f"cannot read {path}: {error}") from error
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"{path}, row {number}", row


def _hub_rows(source: str, split: str) -> Iterator[Row]:
    import datasets

    name, _, configuration = source.partition(":")
    try:
        rows = datasets.load_dataset(name, configuration or None, split=split)
    except Exception as error:  # the library and the network fail in many ways; each says what is wrong
        raise EnvError(
            f"'{source}' is neither a file here nor a Hugging Face data set that can be loaded (split '{split}'): "
            f"{type(error).__name__}: {error}"
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{source} ({split}), row {number}", dict(row)
