"""``rlpost eval --compare A B``: two evaluations' difference over the questions they share, with its interval.

Left out: more than two, and tests of significance (the interval says it).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rlpost.eval.benchmark import EvalError
from rlpost.eval.results import read_results
from rlpost.eval.samples import read_samples
from rlpost.eval.scores import paired_difference


@dataclass(frozen=True, slots=True)
class Difference:
    """B minus A on one benchmark, over the questions that both have.

    Attributes:
        first, second: avg@n of A and of B on these.
        difference, low, high: mean of the paired differences and its 95 % interval.
        better, worse: questions on which B has more, or fewer, right samples a sample than A.
    """

    bench: str
    questions: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    better: int
    worse: int


def compare(first: Path, second: Path) -> list[Difference]:
    """Every benchmark that both evaluations have.

    Raises:
        EvalError: one is none, or they share no benchmark, or fewer than two questions of one.
    """
    shares = [_shares(folder) for folder in (first, second)]
    benches = [bench for bench in shares[0] if bench in shares[1]]
    if not benches:
        raise EvalError(
            f"{first} and {second} have no benchmark in common: {', '.join(shares[0])} and {', '.join(shares[1])}"
        )
    return [_difference(bench, shares[0][bench], shares[1][bench]) for bench in benches]


def _shares(folder: Path) -> dict[str, dict[str, float]]:
    """Share of right samples by benchmark and question."""
    read_results(folder)
    right: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for sample in read_samples(folder).values():
        right[sample.bench][sample.task].append(sample.right)
    return {bench: {task: sum(got) / len(got) for task, got in tasks.items()} for bench, tasks in right.items()}


def _difference(bench: str, first: dict[str, float], second: dict[str, float]) -> Difference:
    shared = [task for task in first if task in second]
    if len(shared) < 2:
        raise EvalError(f"benchmark {bench}: the two evaluations share {len(shared)} questions; at least 2 are needed")
    a, b = [first[task] for task in shared], [second[task] for task in shared]
    mean, low, high = paired_difference(a, b)
    return Difference(
        bench=bench,
        questions=len(shared),
        first=sum(a) / len(a),
        second=sum(b) / len(b),
        difference=mean,
        low=low,
        high=high,
        better=sum(y > x for x, y in zip(a, b, strict=True)),
        worse=sum(y < x for x, y in zip(a, b, strict=True)),
    )


def print_comparison(found: list[Difference], console: Console | None = None) -> None:
    """A table in the terminal."""
    table = Table("benchmark", "questions", "A", "B", "B - A", "95 % interval", "better", "worse")
    for row in found:
        table.add_row(
            row.bench,
            str(row.questions),
            f"{row.first:.1%}",
            f"{row.second:.1%}",
            f"{100 * row.difference:+.1f}",
            f"{100 * row.low:+.1f} .. {100 * row.high:+.1f}",
            str(row.better),
            str(row.worse),
        )
    (console or Console()).print(table)
