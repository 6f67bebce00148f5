"""Names of what a run leaves in its folder, as far as the report reads or writes them, and how they are read safely.

Left out: creating and reopening run folders for training, and checkpoints (runfolder.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECIPE = "recipe.yaml"
METRICS = "metrics.jsonl"
ROLLOUTS = "rollouts"
EVALUATIONS = "evaluations.json"
RESULT = "result.json"
REPORT = "report.html"
SOURCE_WEIGHTS = "source_weights.json"
TENSORBOARD = "tensorboard"


class ReportError(RuntimeError):
    """A run folder, or a file in it, cannot be read; the message says which and what to do."""


def existing_run(folder: Path) -> Path:
    """``folder``, if it holds a run, finished or not.

    Raises:
        ReportError: no such folder, or nothing of a run in it.
    """
    if not folder.exists():
        raise ReportError(f"there is no folder {folder}; give the run folder that `rlpost train` printed (its --out)")
    if not folder.is_dir():
        raise ReportError(f"{folder} is a file; give the run folder it lies in")
    if not any((folder / name).exists() for name in (RECIPE, METRICS, RESULT, ROLLOUTS)):
        raise ReportError(f"{folder} is no run folder: it has neither {RECIPE} nor {METRICS}")
    return folder


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: whoever reads meanwhile sees the old one."""
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file, in order; an unfinished last line (the run was killed, or still writes) is skipped.

    Raises:
        ReportError: a line before the last is no JSON object; the message names file and line.
    """
    with path.open("rb") as file:
        broken = 0
        for number, line in enumerate(file, start=1):
            if broken:
                raise ReportError(f"{path}, line {broken}: not a JSON object; repair the line or remove it")
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict):
                yield row
            else:
                broken = number
