"""One training run from a valid recipe to ``result.json``: evaluate, train, evaluate, report.

Left out: reading the recipe and the command line (cli.py), and the loop itself (controller.py).
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from rlpost.bilevel.trainer import learn_weights
from rlpost.controller import Controller
from rlpost.evaluate import EvalResult
from rlpost.progress import Progress
from rlpost.recipe import LoadedRecipe
from rlpost.report import (
    MetricsWriter,
    ReportError,
    ResultRecord,
    RolloutWriter,
    TokenDisplay,
    build_report,
    package_versions,
    write_result,
)
from rlpost.runfolder import RunFolder
from rlpost.session import Session, open_session


@dataclass(frozen=True, slots=True)
class Resume:
    """Where an interrupted run goes on."""

    steps_done: int
    checkpoint: Path


def train(loaded: LoadedRecipe, folder: RunFolder, started: float, resume: Resume | None = None) -> ResultRecord:
    """Run it. ``started`` is ``time.time()`` of the process's start, for ``wall_s``.

    Whatever ends the run, Ctrl-C included, the actors are ended and the report is written from what is there.

    Raises:
        RunError: a fault the run cannot go on with.
    """
    if resume is None:
        folder.recipe.write_text(loaded.dump())
    with Progress(total_steps=loaded.recipe.steps) as progress, _report_at_the_end(folder.path):
        checkpoint = (resume.steps_done, resume.checkpoint) if resume else None
        evaluations = TRAINERS[loaded.built.trainer](loaded, folder, progress, checkpoint)
        result = _result(loaded, evaluations, time.time() - started)
        write_result(folder.path, result)
    return result


def _policy(
    loaded: LoadedRecipe, folder: RunFolder, progress: Progress, checkpoint: tuple[int, Path] | None
) -> dict[str, EvalResult]:
    """Rollouts, learning, publication, step by step; evaluations by name."""
    with open_session(loaded, folder, progress, checkpoint) as session:
        return _train(session, checkpoint[0] if checkpoint else 0)


def _bilevel(
    loaded: LoadedRecipe, folder: RunFolder, progress: Progress, checkpoint: tuple[int, Path] | None
) -> dict[str, EvalResult]:
    """ScaleBiO; it plays no episodes, so there are no evaluations."""
    learn_weights(loaded, folder, progress, checkpoint)
    return {}


TRAINERS = {"policy": _policy, "bilevel": _bilevel}
"""By the algorithm's ``trainer``."""


@contextlib.contextmanager
def _report_at_the_end(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        try:
            build_report(folder)
        except ReportError as error:  # must not hide what ended the run
            print(f"no report was written: {error}", file=sys.stderr)


def _train(session: Session, first_step: int) -> dict[str, EvalResult]:
    """Everything between the first publication and the end of the actors; evaluations by name."""
    recipe, folder = session.recipe, session.folder
    tokenizer: Any = AutoTokenizer.from_pretrained(session.model, trust_remote_code=recipe.model.trust_remote_code)
    metrics = MetricsWriter(folder.path, recipe.save.tensorboard, first_step)
    rollouts = RolloutWriter(folder.path, TokenDisplay(tokenizer), recipe.save.rollouts, first_step)
    controller = Controller(session, metrics, rollouts)
    kept = folder.path / "evaluations.json"
    evaluations = _read(kept) if first_step else _evaluate(controller, session, "before")
    kept.write_text(json.dumps({name: asdict(result) for name, result in evaluations.items()}, indent=1))
    controller.train(first_step)
    evaluations |= _evaluate(controller, session, "after")
    kept.write_text(json.dumps({name: asdict(result) for name, result in evaluations.items()}, indent=1))
    metrics.close()
    return evaluations


def _evaluate(controller: Controller, session: Session, name: str) -> dict[str, EvalResult]:
    recipe = session.recipe
    if recipe.eval.episodes == 0:
        return {}
    session.progress.phase(f"evaluating {name} training, sampled")
    found = {name: controller.evaluate()}
    if recipe.eval.greedy:
        session.progress.phase(f"evaluating {name} training, greedy")
        found[f"{name}/greedy"] = controller.evaluate(greedy=True)
    return found


def _read(path: Path) -> dict[str, EvalResult]:
    return {name: EvalResult(**values) for name, values in json.loads(path.read_text()).items()}


def _result(loaded: LoadedRecipe, evaluations: dict[str, EvalResult], wall_s: float) -> ResultRecord:
    return ResultRecord(
        steps=loaded.recipe.steps,
        wall_s=wall_s,
        seed=loaded.recipe.seed,
        versions=package_versions(),
        eval_before=evaluations.get("before"),
        eval_after=evaluations.get("after"),
        greedy_before=evaluations.get("before/greedy"),
        greedy_after=evaluations.get("after/greedy"),
        sandbox=loaded.recipe.sandbox,
    )
