"""A benchmark by its name, or by the user's file that describes it.

Left out: its rows (rows.py).
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from rlpost.eval.benchmark import Benchmark, EvalError
from rlpost.eval.catalogue import CATALOGUE
from rlpost.reward.plugins import Plugin, PluginError

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


def find(name: str) -> Benchmark:
    """A benchmark of the catalogue, or the one that a user's file ``NAME.py`` describes.

    Raises:
        EvalError: there is none of that name (the nearest are shown), or the file lacks something.
    """
    if name.endswith(".py"):
        return _from_file(name)
    known = CATALOGUE.get(name.lower())
    if known is None:
        near = difflib.get_close_matches(name.lower(), CATALOGUE, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise EvalError(
            f"there is no benchmark '{name}'; {hint}There are: {', '.join(CATALOGUE)}; name your own by its file, "
            "e.g. my_benchmark.py"
        )
    return known


def _from_file(name: str) -> Benchmark:
    """A file's ``load``, ``reward`` and ``prompt``, or ``Environment``; further names as in Benchmark."""
    try:
        load = _optional(name, "load")
        env = Plugin.locate(f"{name}:Environment") if _optional(name, "Environment") else None
        reward = Plugin.locate(f"{name}:reward")
        given = {key: value for key in _OF_A_FILE if (value := _optional(name, key)) is not None}
    except PluginError as error:
        raise EvalError(f"benchmark {name}: {error}") from None
    if isinstance(given.get("stop"), str):
        given["stop"] = (given["stop"],)
    if env is not None:
        return Benchmark(name=Path(name).stem, env=env, load=load, **given)
    if load is None or not _optional(name, "reward") or not (given.get("prompt") or given.get("base_prompt")):
        raise EvalError(
            f"benchmark {name}: the file must define load(source), reward(completion, task) and prompt = '...' (or an "
            "Environment)"
        )
    return Benchmark(name=Path(name).stem, load=load, reward=reward, **given)


def _optional(name: str, attribute: str) -> Any:
    plugin = Plugin.locate(f"{name}:__name__")
    plugin.load()  # a file that cannot be imported says so
    try:
        return Plugin(f"{plugin.target.rpartition(':')[0]}:{attribute}", plugin.contents).load()
    except PluginError:
        return None
