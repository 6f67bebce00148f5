"""Steps of rlpost at several lags in one session: what ``step.py`` starts as a process of its own.

    python -m rlpost.benchmarks.step_rlpost RECIPE STEPS.jsonl --lags 0 1 2 --warm-up 3 --steps 6

It opens the same session as ``rlpost train`` and takes the same steps; only the lag changes between phases, so that
one start of the actors serves all; at the end rollouts are taken alone. A row is one step's row of metrics.jsonl with
the times it began and ended. Left out: evaluation and checkpoints.
"""

from __future__ import annotations

import argparse
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
from rlpost.rollout.specs import EpisodeSpec
from rlpost.runfolder import RunFolder
from rlpost.sampling import derive_seed
from rlpost.session import Session, open_session

ROLLOUTS = -1
"""Stands where a row is one of rollouts alone."""


def phase(session: Session, lag: int, first: int, count: int, out: TextIO) -> int:
    """``count`` steps at ``lag``, numbered from ``first``; the number after the last."""
    loaded = dataclasses.replace(
        session.loaded, recipe=session.recipe.model_copy(update={"lag": lag, "steps": first + count})
    )
    folder = session.folder.path
    tokenizer: Any = AutoTokenizer.from_pretrained(session.model)
    metrics = MetricsWriter(folder)
    rollouts = RolloutWriter(folder, TokenDisplay(tokenizer), limit=0)
    controller = Controller(dataclasses.replace(session, loaded=loaded), metrics, rollouts)
    for step in range(first, first + count):
        began = time.time()
        controller.step(step, ahead=True)
        row = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
        out.write(json.dumps({"lag_asked": lag, "began": began, "ended": time.time()} | row) + "\n")
        out.flush()
    metrics.close()
    return first + count


def rollouts(session: Session, rounds: int, out: TextIO) -> None:
    """The rollouts of a step alone, several times: Ray, episodes, environment, reward and all, but no learner."""
    recipe, pool = session.recipe, session.pool
    for number in range(rounds):
        specs = [
            EpisodeSpec(session.train[place], place, index, derive_seed(number, place, index))
            for place in range(recipe.batch.tasks)
            for index in range(recipe.batch.group_size)
        ]
        began = time.time()
        flights = pool.submit(specs)
        while any(flight.summary is None for flight in flights):
            pool.poll(flights, 1.0)
        tokens = sum(flight.summary.policy_tokens for flight in flights if flight.summary is not None)
        out.write(json.dumps({"lag_asked": ROLLOUTS, "began": began, "ended": time.time(), "tokens": tokens}) + "\n")
        out.flush()


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
        rollouts(session, args.warm_up + args.steps, out)


if __name__ == "__main__":
    main()
