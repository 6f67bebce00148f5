"""The folder of an evaluation: what was asked, what was answered so far, and how an interrupted one goes on.

    eval.json        the settings          samples.jsonl   one answer a line, as they come; sorted at the end
    tasks.jsonl      the questions         results.json    what it comes to           report.html

Left out: what the answers come to (results.py).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rlpost.eval.benchmark import EvalError
from rlpost.eval.plan import MESSAGES, Plan
from rlpost.report.files import ReportError, read_json_lines, replace_text

SETTINGS, SAMPLES, TASKS, RESULTS = "eval.json", "samples.jsonl", "tasks.jsonl", "results.json"
REFERENCE_CHARACTERS = 2000

Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer.

    Attributes:
        bench, task, index: benchmark, question and number of the sample.
        seed: every random draw came from it.
        right: whether it solved the question.
        reward, parts: the reward function's numbers; reward is 0 for a failed episode.
        answer: what the reward took it to answer; empty where it names nothing.
        stop: why the episode ended; ``truncated``: it ran into its token budget.
        tokens: how many the model sampled.
        text: what the model wrote (and, over several turns, was told).
        error: what went wrong, for a failed episode; it counts as wrong, and is played again by the next sitting.
        scenario, difficulty: of the task, where it has them.
        metrics: the environment's own numbers.
    """

    bench: str
    task: str
    index: int
    seed: int
    right: bool
    reward: float
    answer: str
    stop: str
    truncated: bool
    tokens: int
    text: str
    error: str = ""
    scenario: str = ""
    parts: dict[str, float] = field(default_factory=dict)
    difficulty: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What tells it from the others."""
        return self.bench, self.task, self.index


class SampleFile:
    """``samples.jsonl``, open for more. Each line is on disk before the next episode is looked at."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / SAMPLES
        _cut_torn_line(self._path)
        self._file = self._path.open("a", encoding="utf-8")

    def add(self, sample: Sample) -> None:
        """Append one."""
        self._file.write(json.dumps(asdict(sample), allow_nan=False) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def check_folder(path: Path, plan: Plan) -> dict[Key, Sample]:
    """The samples that are there already and need not be played again; touches nothing.

    Raises:
        EvalError: the folder holds another evaluation; the message says in what they differ.
    """
    place = path / SETTINGS
    if not place.exists():
        if (path / SAMPLES).exists():
            raise EvalError(f"{path} holds samples but no {SETTINGS}; give another --out")
        return {}
    held, wanted = json.loads(place.read_text()), plan.settings.numbers
    differ = sorted(key for key in {*held, *wanted} if held.get(key) != wanted.get(key))
    if differ:
        raise EvalError(
            f"{path} holds another evaluation: {differ[0]} was {held.get(differ[0])!r} and is now "
            f"{wanted.get(differ[0])!r}. Give another --out, or the same options to go on with it"
        )
    return {key: sample for key, sample in read_samples(path).items() if not sample.error}


def make_folder(path: Path, plan: Plan) -> None:
    """The folder with settings and questions, where it is not there yet."""
    path.mkdir(parents=True, exist_ok=True)
    if not (path / SETTINGS).exists():
        replace_text(path / TASKS, "".join(json.dumps(row) + "\n" for row in _task_rows(plan)))
        replace_text(path / SETTINGS, json.dumps(plan.settings.numbers, indent=1) + "\n")


def _task_rows(plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "bench": name,
            "task": task.id,
            "messages": task.data.get(MESSAGES, []),
            "reference": str(task.data.get("answer") or task.data.get("solution") or "")[:REFERENCE_CHARACTERS],
        }
        for name, tasks in plan.tasks.items()
        for task in tasks
    ]


def read_samples(folder: Path) -> dict[Key, Sample]:
    """All samples of an evaluation's folder; of one that was played twice the later.

    Raises:
        EvalError: there are none, or a line is broken.
    """
    path = folder / SAMPLES
    if not path.exists():
        return {}
    try:
        samples = [Sample(**row) for row in read_json_lines(path)]
    except (ReportError, TypeError) as error:
        raise EvalError(f"{path}: {error}") from None
    return {sample.key: sample for sample in samples}


def write_sorted(folder: Path, samples: list[Sample]) -> None:
    """Replace ``samples.jsonl`` by these, so that two evaluations of the same numbers leave the same file."""
    replace_text(folder / SAMPLES, "".join(json.dumps(asdict(sample), allow_nan=False) + "\n" for sample in samples))


def _cut_torn_line(path: Path) -> None:
    """A killed evaluation may leave half a line; what follows must not be joined to it."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
