"""``metrics.jsonl``: one JSON object a step, and its mirror in TensorBoard.

A row is on disk as soon as it is written, so a killed run loses at most the line it was writing. Left out: what the
numbers are (step_metrics.py), and curves (curves.py).
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from rlpost.report.files import METRICS, TENSORBOARD, read_json_lines, replace_text


class MetricsWriter:
    """Appends rows to ``metrics.jsonl``.

    Args:
        folder: the run folder; it exists.
        tensorboard: mirror every number to ``tensorboard/`` in the run folder too. Where the package is not installed
            a warning says so and the rows are written all the same.
        first_step: the first step that will be written, 0 for a fresh run. Rows of this step and later ones, and a
            half-written last line, are removed first, so that a resumed run has each step once. ``None`` keeps all.

    Raises:
        ReportError: ``first_step`` is given and the existing file is damaged before its last line.
    """

    def __init__(self, folder: Path, tensorboard: bool = False, first_step: int | None = None) -> None:
        self._path = folder / METRICS
        if first_step is not None and self._path.exists():
            kept = [row for row in read_metrics(folder) if row.get("step", -1) < first_step]
            replace_text(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = self._path.open("a", encoding="utf-8")
        self._board = _tensorboard(folder / TENSORBOARD, first_step) if tensorboard else None

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row and flush it; NaN and infinite numbers are written as null. ``row["step"]`` must be there."""
        clean = {key: plain(value) for key, value in row.items()}
        step = clean["step"]
        self._file.write(json.dumps(clean, allow_nan=False) + "\n")
        self._file.flush()
        if self._board is not None:
            for key, value in clean.items():
                if key != "step" and isinstance(value, int | float):
                    self._board.add_scalar(key, value, step)
            self._board.flush()

    def close(self) -> None:
        """Close the files; may be called twice."""
        self._file.close()
        if self._board is not None:
            self._board.close()
            self._board = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All rows in the order written; none where there is no file yet. A half-written last line is skipped.

    Raises:
        ReportError: a line before the last is no JSON object; the message names it.
    """
    path = folder / METRICS
    return list(read_json_lines(path)) if path.exists() else []


def plain(value: Any) -> Any:
    """A value as JSON knows it: NumPy and torch scalars become Python's, NaN and infinity become ``None``."""
    if isinstance(value, np.generic) or (hasattr(value, "item") and getattr(value, "ndim", None) == 0):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _tensorboard(folder: Path, first_step: int | None) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        warnings.warn(
            "save.tensorboard: the package tensorboard is not installed, so metrics go to metrics.jsonl only "
            "(pip install tensorboard)",
            stacklevel=3,
        )
        return None
    return SummaryWriter(str(folder), purge_step=first_step or None)  # type: ignore[no-untyped-call]
