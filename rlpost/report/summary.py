"""The words and figures at the head of the report: what was run, and what came of it.

Everything is read from the run folder, and anything may be missing: an interrupted run has no result, a foreign recipe
has other keys. Left out: layout (the page's and the terminal view's).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from rlpost.report.files import EVALUATIONS, RECIPE, SOURCE_WEIGHTS
from rlpost.report.result import Evaluation, ResultRecord, load_evaluation, read_result

CHIPS = (
    ("algorithm.name", "algorithm"),
    ("env.name", "environment"),
    ("model.path", "model"),
    ("steps", "steps"),
    ("lag", "lag"),
    ("learner.optimizer.lr", "learning rate"),
    ("rollout.max_turns", "turns at most"),
    ("rollout.temperature", "temperature"),
    ("seed", "seed"),
)
"""Recipe keys shown at the head, and what they are called there."""

OF_ROLLOUTS = ("env.", "lag", "rollout.")
"""Which of them mean nothing to a run that learns from given examples."""

SO_FAR = {"before": "before", "after": "after", "greedy_before": "before/greedy", "greedy_after": "after/greedy"}
"""Our names of the evaluations, and their names in ``evaluations.json``."""


def read_recipe(folder: Path) -> tuple[str, dict[str, Any]]:
    """The resolved recipe as text and as a mapping; ("", {}) where there is none or it is no mapping."""
    path = folder / RECIPE
    if not path.exists():
        return "", {}
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        values = None
    return text, values if isinstance(values, dict) else {}


def recipe_chips(recipe: dict[str, Any], rollouts: bool = True) -> list[tuple[str, str]]:
    """(name, value) of what a reader wants to know first, shortest form; ``rollouts``: whether the run has any."""
    keys = [(key, name) for key, name in CHIPS if rollouts or not key.startswith(OF_ROLLOUTS)]
    chips = [(name, _short(_lookup(recipe, key))) for key, name in keys if _lookup(recipe, key) is not None]
    build = _lookup(recipe, "model.build")
    if isinstance(build, dict) and {"family", "layers", "hidden"} <= build.keys():
        words = f"{build['family']} {build['layers']} layers of {build['hidden']}, from scratch"
        chips.insert(2 if rollouts else 1, ("model", words))
    tasks, size = _lookup(recipe, "batch.tasks"), _lookup(recipe, "batch.group_size")
    if rollouts and tasks and size:
        chips.append(("a step", f"{tasks} tasks, {size} rollouts each"))
    return chips


def outcome(folder: Path) -> tuple[ResultRecord | None, dict[str, Evaluation]]:
    """The result, and evaluations by name (``before``, ``after``, ``greedy_before``, ``greedy_after``).

    Where the run was interrupted the evaluations played until then are taken from ``evaluations.json``.
    """
    result = read_result(folder)
    if result is not None:
        found = {
            "before": result.eval_before,
            "after": result.eval_after,
            "greedy_before": result.greedy_before,
            "greedy_after": result.greedy_after,
        }
        return result, {name: evaluation for name, evaluation in found.items() if evaluation is not None}
    return None, _evaluations_so_far(folder / EVALUATIONS)


def sources(folder: Path) -> dict[str, Any] | None:
    """What a run over sources of examples learned: ``weights`` by source, heaviest first, and ``test``, a list of a
    model's name, loss, share of tokens and share of answers right; None where the run is of another kind."""
    try:
        content = json.loads((folder / SOURCE_WEIGHTS).read_text(encoding="utf-8"))
        weights = sorted(content["weights"].items(), key=lambda item: -item[1])
        found = content["test"].items()
        test = [[name, one["loss"], one["token_accuracy"], one["answer_accuracy"]] for name, one in found]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return {"weights": weights, "test": test} if weights else None


def status(result: ResultRecord | None, rows: Sequence[dict[str, Any]], recipe: dict[str, Any]) -> str:
    """``finished``, or how far the run came."""
    if result is not None:
        return "finished"
    planned = recipe.get("steps")
    done = len({row.get("step") for row in rows})
    if not done:
        return "no steps yet"
    return f"not finished: {done} of {planned} steps" if isinstance(planned, int) else f"not finished: {done} steps"


def duration(seconds: float) -> str:
    """Seconds in the two largest units, e.g. ``1 min 23 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def _evaluations_so_far(path: Path) -> dict[str, Evaluation]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        loaded = {name: load_evaluation(content.get(key)) for name, key in SO_FAR.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {name: evaluation for name, evaluation in loaded.items() if evaluation is not None}


def _lookup(recipe: dict[str, Any], dotted: str) -> Any:
    value: Any = recipe
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _short(value: Any) -> str:
    """Paths lose their folders and classes their modules; small numbers keep their exponent."""
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    _, separator, name = text.rpartition(":")
    if separator and name.isidentifier():
        return name
    return text.rstrip("/").rpartition("/")[2] if text.startswith(("/", ".", "~")) else text
