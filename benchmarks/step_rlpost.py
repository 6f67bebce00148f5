"""Steps of rlpost at several lags in one session: what ``step.py`` starts as a process of its own.

    python -m benchmarks.step_rlpost RECIPE STEPS.jsonl --lags 0 1 2 --warm-up 3 --steps 6

It opens the same session as ``rlpost train`` and takes the same steps; only the lag changes between phases, so that one
start of the actors serves all. A row is one step's row of metrics.jsonl with the times it began and ended. Left out:
evaluation and checkpoints.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import time
from pathlib import Path
from typing import Any, TextIO

from transformers import AutoTokenizer

from rlpost.controller import Controller
from rlpost.progress import Progress
from rlpost.recipe import LoadedRecipe, Recipe
from rlpost.report import MetricsWriter, RolloutWriter, TokenDisplay
from rlpost.runfolder import RunFolder
from rlpost.session import Session, open_session


def phase(session: Session, lag: int, first: int, count: int, out: TextIO) -> int:
    """``count`` steps at ``lag``, numbered from ``first``; the number after the last."""
    loaded = copy.copy(session.loaded)
    loaded.recipe = session.recipe.model_copy(update={"lag": lag, "steps": first + count})
    folder = session.folder.path
    tokenizer: Any = AutoTokenizer.from_pretrained(session.model)
    metrics = MetricsWriter(folder)
    rollouts = RolloutWriter(folder, TokenDisplay(tokenizer), limit=0)
    controller = Controller(dataclasses.replace(session, loaded=loaded), metrics, rollouts)
    for step in range(first, first + count):
        began = time.time()
        controller.step(step)
        row = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
        out.write(json.dumps({"lag_asked": lag, "began": began, "ended": time.time()} | row) + "\n")
        out.flush()
    metrics.close()
    return first + count


def main() -> None:
    """Open a session, run the phases, write rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--lags", type=int, nargs="+", default=[0])
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    args = parser.parse_args()
    loaded: LoadedRecipe = Recipe.load(args.recipe, [])
    folder = RunFolder(args.rows.parent / f"{args.rows.stem}-run")
    folder.path.mkdir(parents=True, exist_ok=True)
    with (
        args.rows.open("a") as out,
        Progress(total_steps=0) as progress,
        open_session(loaded, folder, progress) as session,
    ):
        done = 0
        for lag in args.lags:
            done = phase(session, lag, done, args.warm_up + lag + args.steps, out)


if __name__ == "__main__":
    main()
