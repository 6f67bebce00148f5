"""What the user sees while a run is under way: one live display in a terminal, plain lines everywhere else.

Left out: colours of one's own choice, and anything that is not also in ``metrics.jsonl``.
"""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from rlpost.report.summary import duration

BARS = "▁▂▃▄▅▆▇█"
RECENT = 10
"""Steps that the estimate of the time left is taken from."""
TRAIL = 40
"""Steps whose success is drawn as small bars."""


class Progress:
    """A display of one run; use it as a context manager, or call ``close``.

    Args:
        total_steps: steps of the whole run.
        console: where to show it; default: standard output. Where that is no terminal, each step, each note and each
            new phase is one line.
    """

    def __init__(self, total_steps: int, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._total = total_steps
        self._done = 0
        self._phase = ""
        self._phase_began = self._stepped_at = time.monotonic()
        self._row: Mapping[str, Any] = {}
        self._seconds: deque[float] = deque(maxlen=RECENT)
        self._successes: deque[float] = deque(maxlen=TRAIL)
        self._spinner = Spinner("dots")
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=8)
            self._live.start()

    def phase(self, text: str) -> None:
        """What is going on now, e.g. ``"warm start 40/200"``; shown until the next phase or step.

        Where there is no terminal, a phase that differs from the last one in its numbers only is not repeated.
        """
        if self._live is None and _without_numbers(text) != _without_numbers(self._phase):
            self._line(text)
        if _without_numbers(text) != _without_numbers(self._phase):
            self._phase_began = time.monotonic()
        self._phase = text

    def step(self, row: Mapping[str, Any]) -> None:
        """Show a step that is done; ``row`` is its row of ``metrics.jsonl``."""
        now = time.monotonic()
        self._done = int(row["step"]) + 1
        seconds = _number(row.get("time/step_s"))
        self._seconds.append(now - self._stepped_at if seconds is None else seconds)
        self._stepped_at = now
        success = _number(row.get("success/mean"))
        if success is not None:
            self._successes.append(success)
        self._row, self._phase = row, ""
        if self._live is None:
            words = "  ".join(f"{name} {value}" if name else value for name, value in self._figures())
            self._line(f"step {self._done}/{self._total}  {words}")

    def note(self, text: str) -> None:
        """One line that stays, e.g. that a worker was restarted."""
        if self._live is None:
            self._line(text)
        else:
            self._console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        """End the display; what it showed last stays. May be called twice."""
        if self._live is not None and self._live.is_started:
            self._phase = ""
            self._live.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def eta_s(self) -> float | None:
        """Seconds until the last step is done, judged by the latest steps; ``None`` before the first."""
        if not self._seconds:
            return None
        return max(0, self._total - self._done) * sum(self._seconds) / len(self._seconds)

    def _line(self, text: str) -> None:
        self._console.out(text, highlight=False)

    def _figures(self) -> list[tuple[str, str]]:
        """(name, value) of what is known of the last step."""
        row, seconds = self._row, self._seconds[-1]
        reward, success = _number(row.get("reward/mean")), _number(row.get("success/mean"))
        tokens, eta = _number(row.get("tokens/rollout")), self.eta_s
        figures = [
            ("reward", "-" if reward is None else f"{reward:.3f}"),
            ("success", "-" if success is None else f"{success:.1%}"),
            ("", "- tok/s" if tokens is None or seconds <= 0 else f"{tokens / seconds:,.0f} tok/s"),
        ]
        weights = {key.removeprefix("weight/"): row[key] for key in row if key.startswith("weight/")}
        if weights:  # no episodes, but sources that are being weighted
            heaviest = max(weights, key=lambda name: weights[name])
            figures = [("validation loss", f"{row['loss']:.4f}"), (heaviest, f"{weights[heaviest]:.1%}")]
        return [
            *figures,
            ("", f"{seconds:.2f} s/step" if seconds < 60 else f"{duration(seconds)}/step"),
            ("eta", "-" if eta is None else duration(eta)),
        ]

    def _render(self) -> RenderableType:
        lines: list[RenderableType] = []
        if self._row:
            lines += [self._bar(), self._figure_line()]
        if self._phase:
            elapsed = duration(time.monotonic() - self._phase_began)
            self._spinner.update(text=Text.assemble(self._phase, (f"  {elapsed}", "dim")))
            lines.append(self._spinner)
        return Group(*lines)

    def _bar(self) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(1, self._total), completed=self._done, width=30)
        grid.add_row(Text(f"step {self._done}/{self._total}", "bold"), bar, Text(_bars(self._successes), "green"))
        return grid

    def _figure_line(self) -> Text:
        parts = [(f"{name} ", "dim") if name else ("", "") for name, _ in self._figures()]
        line = Text()
        for part, (_, value) in zip(parts, self._figures(), strict=True):
            line.append(*part).append(value, "bold").append("   ")
        return line


def _bars(values: deque[float]) -> str:
    """Shares in [0, 1] as small bars."""
    return "".join(BARS[min(len(BARS) - 1, int(min(1.0, max(0.0, value)) * len(BARS)))] for value in values)


def _without_numbers(text: str) -> str:
    return re.sub(r"[\d.,]+", "#", text)


def _number(value: Any) -> float | None:
    """A finite number, or ``None``."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
