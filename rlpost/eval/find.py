"""A benchmark by its name, or by the user's file that describes it.

Left out: its rows (rows.py).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rlpost.eval.benchmark import Benchmark, EvalError
from rlpost.eval.catalogue import CATALOGUE
from rlpost.reward.plugins import Plugin, PluginError
from rlpost.reward.registry import Registry

_OF_A_FILE = (
    "prompt",
    "base_prompt",
    "system",
    "shot",
    "stop",
    "max_new_tokens",
    "max_turns",
    "max_context",
    "env_options",
)


BENCHMARKS = Registry("benchmark", CATALOGUE, own="my_benchmark.py, module:NAME or file.py:NAME")


def find(name: str) -> Benchmark:
    """A benchmark of the catalogue, the one that a user's file ``NAME.py`` describes, or the ``Benchmark`` that
    ``module:NAME`` or ``file.py:NAME`` is.

    Raises:
        EvalError: there is none of that name (the nearest is shown), or the file lacks something.
    """
    if name.endswith(".py"):
        return _from_file(name)
    try:
        found = BENCHMARKS.load(name if ":" in name else name.lower())
    except PluginError as error:
        raise EvalError(str(error)) from None
    if not isinstance(found, Benchmark):
        raise EvalError(f"'{name}' is not a rlpost.eval.benchmark.Benchmark")
    return replace(found, name=short_name(name))


def short_name(name: str) -> str:
    """What a benchmark is called in results and by ``--data``."""
    return Path(name).stem if name.endswith(".py") else name.rpartition(":")[2].lower()


def _from_file(name: str) -> Benchmark:
    """A file's ``load``, ``reward`` and ``prompt``, or ``Environment``; further names as in Benchmark."""
    try:
        file = Plugin.locate(f"{name}:__name__")
        file.load()  # a file that cannot be imported says so
        load = _optional(file, "load")
        env = file.beside("Environment") if _optional(file, "Environment") else None
        given = {key: value for key in _OF_A_FILE if (value := _optional(file, key)) is not None}
    except PluginError as error:
        raise EvalError(f"benchmark {name}: {error}") from None
    if isinstance(given.get("stop"), str):
        given["stop"] = (given["stop"],)
    if env is not None:
        return Benchmark(name=Path(name).stem, env=env, load=load, **given)
    if load is None or not _optional(file, "reward") or not (given.get("prompt") or given.get("base_prompt")):
        raise EvalError(
            f"benchmark {name}: the file must define load(source), reward(completion, task) and prompt = '...' (or an "
            "Environment)"
        )
    return Benchmark(name=Path(name).stem, load=load, reward=file.beside("reward"), **given)


def _optional(file: Plugin, attribute: str) -> Any:
    try:
        return file.beside(attribute).load()
    except PluginError:
        return None
