"""The rows of a benchmark, from the hub, a file or a user's own loader, as tasks.

Whatever is wrong with a row is said with file and line. Left out: formats of files (envs/load.py) and of rows
(columns.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rlpost.envs.base import Env, EnvError, Task
from rlpost.envs.load import load_rows, load_tasks
from rlpost.eval.benchmark import Benchmark, EvalError, Row, Source
from rlpost.reward.functions import load_reward
from rlpost.reward.plugins import PluginError
from rlpost.reward.score import RewardError

_IDS = ("task_id", "unique_id", "id", "ID", "idx")


def tasks_of(
    benchmark: Benchmark,
    data: str | None,
    limit: int | None = None,
    seed: int = 0,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> list[Task]:
    """The questions, the first ``limit`` of them, each with a unique id; a task's data are the columns. ``options`` are
    the environment's, where the benchmark is one.

    Raises:
        EvalError: no data, an unreadable file, a malformed row (named), a repeated id.
    """
    try:
        if benchmark.env is not None and benchmark.load is None:
            return list(_env_tasks(benchmark, data, seed, {**benchmark.env_options, **options}))[:limit]
        rows = _numbered(benchmark, data)
        tasks = _unique([_task(benchmark, number, where, row) for number, where, row in rows][:limit])
        load_reward(benchmark.reward).check([task.data for task in tasks])
        return tasks
    except RewardError as error:
        raise EvalError(f"benchmark {benchmark.name}: {error}") from error
    except (EnvError, PluginError) as error:
        hint = " (here: env_options.KEY=value)" if "env.options" in str(error) else ""
        raise EvalError(f"benchmark {benchmark.name}: {error}{hint}") from error


def shots_of(benchmark: Benchmark, data: str | None, count: int) -> list[Row]:
    """``count`` worked examples: the first rows of their source.

    Raises:
        EvalError: the benchmark has none, or not that many.
    """
    if count == 0:
        return []
    if not benchmark.shot or not (data or benchmark.shot_sources):
        raise EvalError(
            f"benchmark {benchmark.name} has no worked examples; leave --shots out"
            + (f", or name a file of them: --data {benchmark.name}.shots=FILE" if benchmark.shot else "")
        )
    try:
        raw = load_rows(data) if data else _from_hub(benchmark.shot_sources[:1])
        kept = _shot_rows(benchmark, raw)
    except EnvError as error:
        raise EvalError(f"worked examples of {benchmark.name}: {error}") from error
    if len(kept) < count:
        raise EvalError(f"--shots {count}: {data or benchmark.shot_sources[0].name} has only {len(kept)} usable rows")
    return kept[:count]


def _shot_rows(benchmark: Benchmark, rows: Iterable[tuple[str, Row]]) -> list[Row]:
    if benchmark.name.startswith("mbpp"):  # ids 1 to 10 are for prompts; Austin et al. take 2, 3 and 4
        from rlpost.eval.columns import mbpp_any

        return [mbpp_any(row) for _, row in rows if 2 <= int(row.get("task_id", 0)) <= 10]
    converted = [_converted(benchmark, where, row) for where, row in rows]
    return [row for row in converted if row is not None]


def _env_tasks(benchmark: Benchmark, data: str | None, seed: int, options: Mapping[str, Any]) -> Sequence[Task]:
    assert benchmark.env is not None
    if data is not None:
        return load_tasks(data)
    env: type[Env] = benchmark.env.load()
    return env.tasks("eval", seed, **options)


def _numbered(benchmark: Benchmark, data: str | None) -> list[tuple[int, str, Row]]:
    """(number, where it stands, columns) of every row that is part of the benchmark."""
    found = []
    for number, (where, row) in enumerate(_raw(benchmark, data)):
        converted = _converted(benchmark, where, row)
        if converted is not None:
            named = next((str(row[key]) for key in _IDS if row.get(key) is not None), f"{benchmark.name}-{number}")
            found.append((number, where, {**converted, "id": named}))
    if not found:
        raise EvalError(f"benchmark {benchmark.name}: {data or 'its data'} has no rows that belong to it")
    return found


def _raw(benchmark: Benchmark, data: str | None) -> Iterator[tuple[str, Row]]:
    if benchmark.load is not None:
        rows = benchmark.load(data)
        yield from ((f"row {number} of load({data!r})", row) for number, row in enumerate(rows, start=1))
    elif data is not None and Path(data).is_dir():
        yield from _folder_rows(Path(data))
    elif data is not None:
        yield from load_rows(data, "test")
    elif benchmark.sources:
        yield from _from_hub(benchmark.sources)
    else:
        raise EvalError(f"benchmark {benchmark.name} has no data on the hub; give --data {benchmark.name}=FILE")


def _from_hub(sources: Sequence[Source]) -> Iterator[tuple[str, Row]]:
    for source in sources:
        yield from load_rows(source.name, source.split)


def _folder_rows(folder: Path) -> Iterator[tuple[str, Row]]:
    """MATH is published as one object a file, a folder a subject."""
    paths = sorted(folder.rglob("*.json"))
    if not paths:
        raise EvalError(f"{folder} has no .json files")
    for path in paths:
        try:
            row = json.loads(path.read_text())
        except ValueError as error:
            raise EvalError(f"{path}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise EvalError(f"{path}: an object is wanted, this is {type(row).__name__}")
        yield str(path), {"id": str(path.relative_to(folder)), **row}


def _converted(benchmark: Benchmark, where: str, row: Any) -> Row | None:
    if not isinstance(row, Mapping):
        raise EvalError(f"benchmark {benchmark.name}, {where}: an object is wanted, this is {type(row).__name__}")
    try:
        return benchmark.row(dict(row))
    except KeyError as error:
        raise EvalError(
            f"benchmark {benchmark.name}, {where}: the column {error.args[0]} is missing or empty; the row has: "
            f"{', '.join(map(str, row))}"
        ) from None
    except (TypeError, ValueError) as error:
        raise EvalError(f"benchmark {benchmark.name}, {where}: {error}") from None


def _task(benchmark: Benchmark, number: int, where: str, row: Row) -> Task:
    return Task(
        id=row.pop("id"),
        data=row,
        scenario=str(row.get("scenario") or ""),
        source=where,
    )


def _unique(tasks: list[Task]) -> list[Task]:
    seen: dict[str, str] = {}
    for task in tasks:
        if task.id in seen:
            raise EnvError(f"{task.source}: the id '{task.id}' is also that of {seen[task.id]}; ids must be unique")
        seen[task.id] = task.source
    return tasks
