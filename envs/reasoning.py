"""Tasks of the reasoning-gym package by name: countdown, mini_sudoku, basic_arithmetic and a hundred more.

Questions are generated, and answers judged, by the package itself. Some of its judges evaluate the model's words as
Python; those run in the sandbox, unless the words are plain arithmetic. Left out: its curricula.
"""

from __future__ import annotations

import ast
import base64
import difflib
import inspect
import json
import pickle
import random
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from rlpost.envs.base import EnvError, Message, Score, Task
from rlpost.envs.one_answer import OneAnswer
from rlpost.reward.sandbox import Limits, SandboxError, SandboxUnavailable, run
from rlpost.reward.score import RewardError

EVAL_SEED = 1_000_003
"""Held-out questions are the same whatever the run's seed, so that runs compare."""

_EVALUATORS = frozenset({"eval", "exec", "compile", "parse_expr", "sympify", "simplify", "interpret", "__import__"})
_ARITHMETIC = re.compile(r"(?:[0-9+\-/().\s]|\*(?!\*)){0,400}")
_PACKAGES = ("reasoning_gym", "sympy", "mpmath", "numpy")  # sympy imports parts of itself only when they are needed
_LIMITS = Limits(wall_s=20.0, cpu_s=2.0)
_SANDBOXED = """
import base64, pickle, reasoning_gym
name, config, answer, entry = pickle.loads(base64.b64decode({payload!r}))
print({mark!r}, float(reasoning_gym.create_dataset(name, **config).score_answer(answer, entry)))
"""


class ReasoningGym(OneAnswer):
    """One question of a reasoning-gym data set, answered once.

    The reward is the data set's own score in [0, 1]; an answer its judge breaks on is worth 0 (metric ``unscorable``).

    Args:
        task: one of ``tasks``.
        seed: not used.
        dataset: the data set's name.
        config: its own configuration, e.g. ``{"max_numbers": 4}``.
        train_size, eval_size: distinct questions of each split; no question is in both.
        system_prompt: a system message, e.g. on where to put the answer.
        answer_tag: judge only what stands in the last ``<tag>...</tag>``; the whole answer where None.
        unsafe: where the host gives no isolation, judge without a sandbox all the same.

    Raises:
        EnvError: the package is missing, or it has no such data set or configuration.
        RewardError: the host gives no isolation, and not ``unsafe``.
    """

    def __init__(
        self,
        task: Task,
        seed: int,
        dataset: str,
        config: Mapping[str, Any] | None = None,
        train_size: int = 1000,
        eval_size: int = 256,
        system_prompt: str | None = None,
        answer_tag: str | None = None,
        unsafe: bool = False,
    ) -> None:
        super().__init__(task, seed)
        self._entry = entry_of(task)
        self._dataset = dataset
        self._config = dict(config or {})
        self._system_prompt = system_prompt
        self._answer_tag = answer_tag
        self._unsafe = unsafe
        self._unscorable = False

    @classmethod
    def tasks(
        cls,
        split: str,
        seed: int,
        dataset: str = "",
        config: Mapping[str, Any] | None = None,
        train_size: int = 1000,
        eval_size: int = 256,
        **options: Any,
    ) -> Sequence[Task]:
        """Distinct questions; those of "eval" do not depend on ``seed`` and are left out of "train"."""
        settings = json.dumps(dict(config or {}), sort_keys=True)
        entries = _held_out(dataset, settings, eval_size)
        if split == "train":
            taken = {entry["question"] for entry in entries}
            entries = _draw(dataset, settings, random.Random(f"train {seed}").randrange(2**31), train_size, taken)
        for entry in entries[:1]:
            _check_judge(dataset, settings, entry)
        return [Task(f"{dataset}-{split}-{i}", {"entry": entry}) for i, entry in enumerate(entries)]

    @classmethod
    def check_tasks(cls, tasks: Sequence[Task], **options: Any) -> None:
        """Rows of a file are entries of the package.

        Raises:
            EnvError: names the row and the column that is missing.
        """
        for task in tasks:
            entry_of(task)

    def start(self) -> Sequence[Message]:
        """The question."""
        question: Message = {"role": "user", "content": self._entry["question"]}
        if self._system_prompt is None:
            return [question]
        return [{"role": "system", "content": self._system_prompt}, question]

    def score(self) -> Score:
        """The data set's own judgement."""
        answer = self._judged_part()
        try:
            if _ARITHMETIC.fullmatch(answer) or not evaluates_text(self._dataset):
                judge = _dataset(self._dataset, json.dumps(self._config))
                return Score(float(judge.score_answer(answer, self._entry)))
            return Score(self._sandboxed(answer))
        except (SandboxUnavailable, SandboxError) as error:
            raise RewardError(str(error)) from error
        except (RewardError, EnvError):
            raise
        except Exception:  # the judge broke on the model's words
            self._unscorable = True
            return Score(0.0)

    def metrics(self) -> Mapping[str, float]:
        """``unscorable``: 1 where the judge broke on the answer."""
        return {"unscorable": float(self._unscorable)}

    def _judged_part(self) -> str:
        if self._answer_tag is None:
            return self.answer.strip()
        tag = re.escape(self._answer_tag)
        found = re.findall(rf"<{tag}>((?:(?!<{tag}>).)*?)</{tag}>", self.answer, re.DOTALL)
        return found[-1].strip() if found else ""

    def _sandboxed(self, answer: str) -> float:
        payload = base64.b64encode(pickle.dumps((self._dataset, self._config, answer, self._entry)))
        mark = f"score-{self.seed}:"
        program = _SANDBOXED.format(payload=payload.decode(), mark=mark)
        outcome = run(program, _LIMITS, packages=_PACKAGES, unsafe=self._unsafe)
        lines = [line for line in outcome.stdout.splitlines() if line.startswith(mark)]
        if not outcome.ok or len(lines) != 1:
            raise ValueError(f"the judge ended with {outcome.reason}")
        return float(lines[0].removeprefix(mark))


def entry_of(task: Task) -> dict[str, Any]:
    """The package's entry of a task: column ``entry``, or the row itself, as the package writes it: ``question``,
    ``answer`` and ``metadata`` (also as JSON text).

    Raises:
        EnvError: the task has neither.
    """
    row = task.data.get("entry", task.data)
    if not isinstance(row, dict) or not {"question", "answer", "metadata"} <= row.keys():
        raise EnvError(
            f"task '{task.id}' is no row of reasoning-gym: the columns question, answer and metadata are wanted (or "
            f"all three in one, entry); it has: {', '.join(map(str, row)) if isinstance(row, dict) else repr(row)[:80]}"
        )
    metadata = row["metadata"]
    try:
        metadata = json.loads(metadata) if isinstance(metadata, str) else metadata
    except ValueError as error:
        raise EnvError(f"task '{task.id}': column metadata is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise EnvError(f"task '{task.id}': column metadata holds no object: {metadata!r:.80}")
    return {**row, "metadata": metadata}


@lru_cache(maxsize=4)
def _held_out(name: str, config: str, count: int) -> list[dict[str, Any]]:
    """Wanted for both splits, and slow to generate for some data sets."""
    return _draw(name, config, EVAL_SEED, count, set())


def _draw(name: str, config: str, seed: int, count: int, taken: set[str]) -> list[dict[str, Any]]:
    """``count`` entries whose questions are not in ``taken``, which they join. ``config`` is JSON."""
    drawn: list[dict[str, Any]] = []
    for entry in _entries(name, config, seed, 20 * count + 100):
        if len(drawn) == count:
            break
        if entry["question"] not in taken:
            taken.add(entry["question"])
            drawn.append(entry)
    if len(drawn) < count:
        raise EnvError(
            f"reasoning-gym's '{name}' with this configuration has too few distinct questions: {len(drawn)} of {count} "
            "were found. Lower train_size or eval_size, or widen env.options.config"
        )
    return drawn


def _entries(name: str, config: str, seed: int, most: int) -> Iterator[dict[str, Any]]:
    dataset = _dataset(name, json.dumps({**json.loads(config), "seed": seed, "size": most}))
    for index in range(most):
        yield dataset[index]


def _check_judge(name: str, config: str, entry: dict[str, Any]) -> None:
    """A judge that breaks on the data set's own answer is broken itself; better said before a run than never."""
    if not isinstance(entry["answer"], str):
        return
    try:
        float(_dataset(name, config).score_answer(entry["answer"], entry))
    except Exception as error:
        raise EnvError(
            f"reasoning-gym's '{name}' cannot judge its own answer: {type(error).__name__}: {error}"
        ) from error


@lru_cache(maxsize=8)
def _dataset(name: str, config: str) -> Any:
    """A data set object, from its configuration as JSON."""
    dataset_class, config_class = _registered(name)
    try:
        settings = config_class(**json.loads(config))
        if hasattr(settings, "validate"):
            settings.validate()
        return dataset_class(config=settings)
    except (TypeError, ValueError, AssertionError) as error:
        known = ", ".join(key for key in inspect.signature(config_class).parameters if key not in ("seed", "size"))
        raise EnvError(
            f"env.options.config does not fit reasoning-gym's '{name}': {error}. Its keys: {known}"
        ) from error


def _registered(name: str) -> tuple[Any, Any]:
    """The classes of the data set and of its configuration."""
    try:
        from reasoning_gym import factory
    except ImportError as error:
        raise EnvError(f"reasoning-gym is not installed ({error}): pip install 'rlpost[tasks]'") from error
    if name not in factory.DATASETS:
        near = difflib.get_close_matches(name, factory.DATASETS, n=3, cutoff=0.4)
        hint = f"the nearest: {', '.join(near)}" if near else f"it has {', '.join(sorted(factory.DATASETS))}"
        raise EnvError(f"reasoning-gym has no data set '{name}' (env.options.dataset); {hint}")
    found: tuple[Any, Any] = factory.DATASETS[name]
    return found


@lru_cache(maxsize=128)
def evaluates_text(name: str) -> bool:
    """Whether the data set's judge may evaluate an answer as code: its module names an evaluator, and the judge is its
    own rather than the package's plain comparison of strings."""
    dataset_class, _ = _registered(name)
    defined_in = sys.modules[dataset_class.score_answer.__module__]
    tree = ast.parse(inspect.getsource(defined_in))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return name == "composite" or not names.isdisjoint(_EVALUATORS)
