"""What the user sees while an evaluation runs: one bar in a terminal, a line now and then everywhere else.

Left out: anything that is not also in the evaluation's folder.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from rlpost.eval.samples import Sample

LINE_EVERY_S = 10.0
WIDTH = 140
"""Columns of the table where there is no terminal to ask."""


class Display:
    """Use it as a context manager.

    Args:
        console: where to show it; default: standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, figures="")
        self._total = self._done = self._right = self._tokens = 0
        self._began = self._line_at = time.monotonic()

    def phase(self, text: str) -> None:
        """What is going on now."""
        self._bar.update(self._task, description=text)
        if not self.console.is_terminal:
            self.console.out(text, highlight=False)

    def note(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, soft_wrap=True, markup=False)

    def start(self, missing: int, there: int, right: int) -> None:
        """The first episode starts; ``there`` of all samples, ``right`` of them right, are from an earlier sitting."""
        self._total, self._done, self._right = missing + there, there, right
        self._began = self._line_at = time.monotonic()
        self.phase("answering" if not there else f"answering, going on after {there}")
        self._bar.reset(self._task, total=self._total, completed=there, description="answering", figures="")

    def answer(self, sample: Sample) -> None:
        """One more is judged."""
        self._done += 1
        self._right += sample.right
        self._tokens += sample.tokens
        now = time.monotonic()
        rate = self._tokens / max(1e-9, now - self._began)
        figures = f"{self._right / self._done:.1%} right  {rate:,.0f} tok/s"
        self._bar.update(self._task, completed=self._done, figures=figures)
        if not self.console.is_terminal and (now - self._line_at > LINE_EVERY_S or self._done == self._total):
            self._line_at = now
            self.console.out(f"{self._done}/{self._total}  {figures}", highlight=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


def print_results(results: dict[str, Any], console: Console) -> None:
    """A table, one row a benchmark. pass@1 is the score itself and not repeated."""
    extra = list(dict.fromkeys(key for found in results["benchmarks"].values() for key in found if _is_estimate(key)))
    table = Table("benchmark", "score", "95 % interval", "asked", *extra, "truncated", "tokens")
    for name, found in results["benchmarks"].items():
        low, high = found["ci95"]
        more = [f"{found[key]['value']:.1%}" if key in found else "-" for key in extra]
        table.add_row(
            name,
            f"{found['score']:.1%}",
            f"{100 * low:.1f} .. {100 * high:.1f}",
            f"{found['questions']} x {found['n']}",
            *more,
            f"{found['truncated']:.0%}",
            f"{found['tokens_per_sample']:.0f}",
        )
    for column in table.columns:
        column.no_wrap = True
    console.print(table)


def _is_estimate(key: str) -> bool:
    return (key.startswith(("pass@", "majority@")) and key != "pass@1") or key == "sgc"
