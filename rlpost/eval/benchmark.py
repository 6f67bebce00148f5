"""What a benchmark is: where its rows are, what one row asks, and who judges the answer. Data, and one function.

Left out: the benchmarks themselves (catalogue.py) and reading their rows (rows.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlpost.reward.plugins import Plugin


class EvalError(ValueError):
    """An evaluation that cannot be done as asked; nothing was started. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """A split of a Hugging Face data set; ``name`` is ``owner/name`` or ``owner/name:configuration``."""

    name: str
    split: str = "test"


Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark.

    Templates are ``str.format`` texts over the columns that ``row`` gives; a brace that is none is written twice.

    Attributes:
        name: what ``--bench`` calls it.
        about: one line for the documentation, with the source of the prompts.
        sources: its rows on the hub, in order; empty where a file has to be named.
        row: from a row in the published format to the columns that prompts and reward use, or ``None`` for a row that
            is not part of the benchmark. Raises KeyError for a missing column, ValueError for one that is unsound.
        prompt: the user message under chat prompts.
        base_prompt: the text to be continued under base prompts.
        system: a system message under chat prompts.
        shot: under chat prompts, what the assistant says in a worked example; under base prompts, what follows the
            prompt in one. Empty: the benchmark has no worked examples.
        shot_sources: where worked examples are taken from, the first rows.
        stop: texts that end an answer under base prompts.
        reward: a reward function, by name or as a plugin.
        max_new_tokens: tokens an answer may have unless the user says otherwise.
        load: a user's own loader: from what ``--data`` says (or None) to rows; then ``sources`` is not used.
        env: an environment class instead of prompts and reward; its ``tasks("eval", seed)`` are the questions unless a
            file is named.
        env_options: its keyword arguments.
        max_turns: assistant turns an episode of ``env`` may take.
        max_context: tokens an episode of ``env`` may have; elsewhere the prompts decide.
    """

    name: str
    about: str = ""
    sources: tuple[Source, ...] = ()
    row: Callable[[Row], Row | None] = dict
    prompt: str = ""
    base_prompt: str = ""
    system: str = ""
    shot: str = ""
    shot_sources: tuple[Source, ...] = ()
    stop: tuple[str, ...] = ()
    reward: str | Plugin = ""
    max_new_tokens: int = 1024
    load: Callable[[str | None], Any] | None = None
    env: Plugin | None = None
    env_options: Mapping[str, Any] = field(default_factory=dict)
    max_turns: int = 1
    max_context: int = 8192
