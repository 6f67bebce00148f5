"""``results.json``: what an evaluation comes to, one entry a benchmark.

Left out: the estimators (scores.py) and the page (page.py).
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlpost.eval.benchmark import EvalError
from rlpost.eval.samples import RESULTS, Sample
from rlpost.eval.scores import majority, mean_interval, pass_at_k
from rlpost.eval.settings import EvalSettings
from rlpost.goals import Played, goal_completion
from rlpost.report.files import replace_text
from rlpost.report.result import package_versions


def summarise(samples: Sequence[Sample], ks: Sequence[int]) -> dict[str, Any]:
    """What the samples of one benchmark come to.

    Args:
        samples: n of each question, by question.
        ks: the k of pass@k, each at most n.

    Returns:
        ``score`` (avg@n: the mean share of right samples) with ``ci95``; ``pass@k`` and ``majority@n`` where n > 1,
        each ``{value, ci95}``; ``questions``, ``n``, ``reward``; ``stops`` and shares ``truncated`` and ``failed``;
        ``tokens`` in all and a sample; where questions belong to scenarios ``sgc``, and ``goals``: task and scenario
        goal completion overall and by difficulty; ``env``: means of the environment's own numbers, where it has any.
    """
    by_task: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_task[sample.task].append(sample)
    groups = list(by_task.values())
    n = len(groups[0])
    right = [sum(sample.right for sample in group) for group in groups]
    score, low, high = mean_interval([count / n for count in right], n)
    found: dict[str, Any] = {"score": score, "ci95": [low, high], "questions": len(groups), "n": n}
    if n > 1:
        found |= {f"pass@{k}": _estimate([pass_at_k(n, count, k) for count in right], n // k) for k in ks}
    if n > 1 and any(sample.answer for sample in samples):
        votes = [majority([s.answer for s in group], [s.right for s in group]) for group in groups]
        found[f"majority@{n}"] = _estimate(votes)
    found |= _scenarios(groups) | _environment(samples)
    tokens = sum(sample.tokens for sample in samples)
    return found | {
        "reward": math.fsum(sample.reward for sample in samples) / len(samples),
        "stops": dict(sorted(Counter(sample.stop for sample in samples).items())),
        "truncated": sum(sample.truncated for sample in samples) / len(samples),
        "failed": sum(bool(sample.error) for sample in samples) / len(samples),
        "tokens": tokens,
        "tokens_per_sample": tokens / len(samples),
    }


def _estimate(values: Sequence[float], trials_each: int = 1) -> dict[str, Any]:
    value, low, high = mean_interval(values, trials_each)
    return {"value": value, "ci95": [low, high]}


def _scenarios(groups: Sequence[Sequence[Sample]]) -> dict[str, Any]:
    """Scenario goal completion: of the variants of a scenario, all are solved (AppWorld's SGC; ``score`` is its TGC).
    A scenario's value is the mean over sample numbers."""
    members: dict[str, list[Sequence[Sample]]] = defaultdict(list)
    for group in groups:
        if group[0].scenario:
            members[group[0].scenario].append(group)
    if not members:
        return {}
    n = len(groups[0])
    values = [sum(all(group[i].right for group in found) for i in range(n)) / n for found in members.values()]
    played = [Played(one.task, one.scenario, one.difficulty, one.right) for group in groups for one in group]
    return {"sgc": _estimate(values), "scenarios": len(members), "goals": goal_completion(played)}


def _environment(samples: Sequence[Sample]) -> dict[str, Any]:
    names = dict.fromkeys(name for sample in samples for name in sample.metrics)
    seen = {name: [sample.metrics[name] for sample in samples if name in sample.metrics] for name in names}
    means = {name: math.fsum(values) / len(values) for name, values in seen.items()}
    return {"env": means} if means else {}


def write_results(
    folder: Path,
    settings: EvalSettings,
    benches: Mapping[str, Any],
    wall_s: float,
    played: Sequence[Sample],
    engines: Sequence[Mapping[str, float]] = (),
) -> dict[str, Any]:
    """Write ``results.json``; its content.

    ``wall_s``, ``samples_played`` and ``tokens_per_s`` are of this sitting: of an evaluation that was gone on with, of
    its last part, first answer to last. ``engines`` are what the workers' engines counted, see ``VllmEngine.stats``.
    """
    tokens = sum(sample.tokens for sample in played)
    content = {
        "model": settings.model,
        "benchmarks": dict(benches),
        "wall_s": round(wall_s, 3),
        "samples_played": len(played),
        "tokens_per_s": round(tokens / wall_s, 1) if wall_s > 0 else 0.0,
        "engines": [{name: round(value, 3) for name, value in engine.items()} for engine in engines],
        "settings": settings.model_dump(mode="json"),
        "versions": package_versions(),
    }
    replace_text(folder / RESULTS, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return content


def read_results(folder: Path) -> dict[str, Any]:
    """The content of ``results.json``.

    Raises:
        EvalError: the folder has none.
    """
    path = folder / RESULTS
    if not path.is_file():
        raise EvalError(f"{folder} has no {RESULTS}; give the --out folder of an evaluation that has ended")
    content: dict[str, Any] = json.loads(path.read_text())
    return content
