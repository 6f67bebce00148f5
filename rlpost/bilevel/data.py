"""From data files to examples: read, checked against each other, tokenised. Nothing else has been started by then.

``read`` refuses what no model is needed for: broken rows beyond the limit, an empty source, examples that are on both
sides. ``encode`` turns the rest into tokens as an episode would. Left out: what a row may look like (rows.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlpost.algorithms.scalebio import DataConfig, ScaleBiOConfig
from rlpost.bilevel.rows import conversation
from rlpost.envs.base import EnvError, Message
from rlpost.envs.load import load_rows
from rlpost.rollout.chat import ChatError, ChatFormat
from rlpost.rollout.trajectory import StopReason, Trajectory, Turn
from rlpost.warm_start_data import IGNORED, DataError, tokenize

SHOWN = 3
"""Broken rows quoted in a message."""


@dataclass(frozen=True, slots=True)
class Row:
    """A conversation and where it stands."""

    where: str
    messages: list[Message]

    @property
    def content(self) -> tuple[tuple[str, str], ...]:
        """What makes two rows the same."""
        return tuple((message["role"], message["content"].strip()) for message in self.messages)


@dataclass(frozen=True, slots=True)
class Example:
    """A sequence of T tokens and which of them are learned, (T,) int32 and (T,) bool."""

    token_ids: NDArray[np.int32]
    learned: NDArray[np.bool_]

    @property
    def tokens(self) -> int:
        """How many are learned (the first token of a sequence never is)."""
        return int(self.learned[1:].sum())

    def trajectory(self) -> Trajectory:
        """In the form the learner takes: learned tokens stand where a policy's would."""
        spoken = np.flatnonzero(self.learned)
        length = len(self.token_ids)
        return Trajectory(
            token_ids=self.token_ids,
            policy_mask=self.learned,
            rollout_logprobs=np.zeros(length, dtype=np.float32),
            versions=np.zeros(length, dtype=np.int32),
            turns=[Turn(int(spoken[0]), int(spoken[-1]) + 1)],
            reward=0.0,
            reward_parts={},
            success=False,
            stop=StopReason.DONE,
            task_id="example",
            group_id=0,
            index=0,
            seed=0,
        )


@dataclass(frozen=True, slots=True)
class Rows:
    """What was read: rows of each source by name, of the validation and of the test set."""

    sources: dict[str, list[Row]]
    validation: list[Row]
    test: list[Row]


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is trained on.

    Attributes:
        names: of the m sources.
        train: N examples.
        source: (N,) int64, the source of each.
        validation, test: further examples.
    """

    names: list[str]
    train: list[Example]
    source: NDArray[np.int64]
    validation: list[Example]
    test: list[Example]


class _Tally:
    """Counts broken rows and gives up beyond the limit."""

    def __init__(self, limit: int, note: Callable[[str], None]) -> None:
        self._limit, self._note, self._found = limit, note, list[str]()

    def __call__(self, message: str) -> None:
        self._found.append(message)
        if len(self._found) > self._limit:
            shown = "\n".join(f"  {line}" for line in self._found[-SHOWN:])
            raise DataError(
                f"{len(self._found)} broken rows, more than algorithm.max_broken ({self._limit}) allows. The last:\n"
                + shown
            )
        self._note(f"skipped a broken row: {message}")


def read(config: ScaleBiOConfig, folder: Path, note: Callable[[str], None]) -> Rows:
    """Read all files.

    Args:
        config: the recipe's algorithm section.
        folder: where relative paths start.
        note: called with a line for the user, a broken row or an overlap that is allowed.

    Raises:
        DataError: more broken rows than ``max_broken`` (the last ones are quoted with file and line), a source
            without rows, a single source, two of one name, or validation or test examples among the training examples.
        EnvError: a file or data set that cannot be read.
    """
    tally = _Tally(config.max_broken, note)
    sources: dict[str, list[Row]] = {}
    for entry in config.sources:
        for name, found in _parts(entry, folder, tally).items():
            if name in sources:
                raise DataError(f"algorithm.sources: two sources are called '{name}'; give each a name of its own")
            sources[name] = found
    if len(sources) < 2:
        raise DataError(f"algorithm.sources: only one source ('{next(iter(sources))}'); its weight is always 1")
    validation = _whole(config.validation, "validation", folder, tally)
    test = _whole(config.test, "test", folder, tally) if config.test is not None else []
    rows = Rows(sources, validation, test)
    _check_overlap(rows, config.allow_overlap, note)
    return rows


def _parts(entry: DataConfig, folder: Path, tally: _Tally) -> dict[str, list[Row]]:
    """The rows of an entry of ``sources`` by source: one, or one a value of its column."""
    if entry.column is None:
        return {entry.label: _rows(entry, f"the source '{entry.label}'", folder, tally)}
    found: dict[str, list[Row]] = {}
    _rows(entry, f"the file '{entry.data}'", folder, tally, lambda value, row: found.setdefault(value, []).append(row))
    return dict(sorted(found.items()))


def _whole(entry: DataConfig, key: str, folder: Path, tally: _Tally) -> list[Row]:
    return _rows(entry, f"algorithm.{key}", folder, tally)


def _rows(
    entry: DataConfig, what: str, folder: Path, tally: _Tally, into: Callable[[str, Row], Any] | None = None
) -> list[Row]:
    """All usable rows of a file; ``into`` also gets each with the value of the entry's column."""
    nearby, (dataset, _, split) = folder / entry.data, entry.data.partition("@")
    place = str(nearby) if nearby.exists() else dataset
    if nearby.is_file() and not nearby.stat().st_size:
        raise DataError(f"{what} is empty: {place}")
    found = []
    for where, row in load_rows(place, split or "train", tally):
        try:
            one = Row(where, conversation(row))
            if into is not None and entry.column is not None:
                value = row.get(entry.column)
                if not isinstance(value, str) or not value:
                    raise DataError(f"no source in the column '{entry.column}'")
                into(value, one)
        except DataError as error:
            tally(f"{where}: {error}")
            continue
        found.append(one)
    if not found:
        raise DataError(f"{what} is empty: no usable row in {place}")
    return found


def _check_overlap(rows: Rows, allowed: bool, note: Callable[[str], None]) -> None:
    """Held-out examples must not be training examples too."""
    held_out = {"validation": rows.validation, "test": rows.test}
    known: dict[str, list[Row]] = {f"source '{name}'": found for name, found in rows.sources.items()}
    known["validation set"] = rows.validation
    complaints = []
    for key, own in held_out.items():
        for other, found in known.items():
            if found is own:
                continue
            seen = {row.content for row in found}
            shared = [row for row in own if row.content in seen]
            if shared and not (key == "validation" and other == "validation set"):
                complaints.append(
                    f"{len(shared)} of {len(own)} {key} examples are also in the {other} (first: {shared[0].where})"
                )
    if complaints and not allowed:
        raise DataError("; ".join(complaints) + ". Remove them, or set algorithm.allow_overlap: true to go on")
    for complaint in complaints:
        note(complaint)


def encode(rows: Rows, chat: ChatFormat, longest: int, note: Callable[[str], None]) -> Corpus:
    """Tokens of everything.

    Args:
        rows: from ``read``.
        chat: the model's chat format.
        longest: longer examples are cut (``rollout.max_context``); one of which nothing to learn is left is dropped.
        note: called with a line on what was dropped.

    Raises:
        DataError: nothing is left of a source, of the validation or of the test set.
    """

    def every(found: Sequence[Row], what: str) -> list[Example]:
        made = [_example(row, chat, longest) for row in found]
        kept = [example for example in made if example.tokens]
        if found and not kept:
            raise DataError(f"no example of {what} has anything to learn within rollout.max_context ({longest} tokens)")
        if len(kept) < len(made):
            lost = len(made) - len(kept)
            note(f"{lost} of {len(made)} examples of {what} have nothing to learn within rollout.max_context: dropped")
        return kept

    names, train, source = list(rows.sources), list[Example](), list[int]()
    for number, name in enumerate(names):
        examples = every(rows.sources[name], f"the source '{name}'")
        train += examples
        source += [number] * len(examples)
    validation, test = every(rows.validation, "algorithm.validation"), every(rows.test, "algorithm.test")
    return Corpus(names, train, np.array(source, dtype=np.int64), validation, test)


def _example(row: Row, chat: ChatFormat, longest: int) -> Example:
    try:
        if row.messages[-1]["role"] == "assistant":
            made = tokenize(row.messages, chat)
            ids, learned = made.input_ids, np.array(made.labels) != IGNORED
        else:
            ids = chat.opening(row.messages)  # a prompt without a response is learned itself
            learned = np.ones(len(ids), dtype=np.bool_)
    except ChatError as error:
        raise DataError(f"{row.where}: {error}") from error
    return Example(np.array(ids[:longest], dtype=np.int32), learned[:longest])


__all__ = ["Corpus", "DataError", "EnvError", "Example", "Row", "Rows", "encode", "read"]
