"""The run folder: what lies where, and how a run folder is opened for a new run or to go on.

    recipe.yaml  metrics.jsonl  rollouts/  checkpoints/step-N/  model/  report.html  result.json

Left out: the content of these files (report/, learner/).
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from rlpost.recipe import RecipeError

KEPT = 2
"""Checkpoints of a run that stay."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths inside one run folder."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def model(self) -> Path:
        """The model the run starts from, where the run built or converted it."""
        return self.path / "model"

    @property
    def warm_model(self) -> Path:
        """The same after the warm start, where the recipe has one."""
        return self.path / "warm_model"

    @property
    def result(self) -> Path:
        """Written when a run ends well."""
        return self.path / "result.json"

    def checkpoint(self, step: int) -> Path:
        """Folder of the checkpoint after ``step`` steps."""
        return self.path / "checkpoints" / f"step-{step}"

    def checkpoints(self) -> list[tuple[int, Path]]:
        """Complete checkpoints, oldest first."""
        found = []
        for folder in (self.path / "checkpoints").glob("step-*"):
            match = re.fullmatch(r"step-(\d+)", folder.name)
            if match and (folder / "trainer_state.pt").exists():
                found.append((int(match[1]), folder))
        return sorted(found)

    def prune_checkpoints(self) -> None:
        """Remove all but the newest ``KEPT``."""
        for _, folder in self.checkpoints()[:-KEPT]:
            shutil.rmtree(folder)


def create(path: Path) -> RunFolder:
    """An empty run folder.

    Raises:
        RecipeError: the folder already holds a run; nothing of it is touched.
    """
    folder = RunFolder(path)
    if folder.recipe.exists():
        raise RecipeError(
            f"{path} already holds a run. Give another --out, remove it, or go on from it with: "
            f"rlpost train --resume {path}"
        )
    path.mkdir(parents=True, exist_ok=True)
    return folder


def reopen(path: Path) -> tuple[RunFolder, int, Path]:
    """A run folder to go on from: the folder, the number of steps done, and the checkpoint.

    ``path`` is a run folder or one of its checkpoint folders.

    Raises:
        RecipeError: not a run folder, or it has no checkpoint.
    """
    match = re.fullmatch(r"step-(\d+)", path.name)
    folder = RunFolder(path.parent.parent if match else path)
    if not folder.recipe.exists():
        raise RecipeError(f"{path} is no run folder: it has no recipe.yaml")
    found = folder.checkpoints()
    if match:
        found = [(step, place) for step, place in found if step == int(match[1])]
    if not found:
        raise RecipeError(f"{path} has no complete checkpoint to go on from (save.every sets how often one is written)")
    step, place = found[-1]
    return folder, step, place
