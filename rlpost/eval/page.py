"""``report.html`` of an evaluation: one offline file with the scores and the answers, filtered by right or wrong.

It shares frame, style and rules with a run's report: everything inline, nothing is fetched, and whatever a model wrote
only ever becomes text nodes. Left out: token by token views (a run's report has them).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlpost.eval.benchmark import EvalError
from rlpost.eval.results import read_results
from rlpost.eval.samples import TASKS, read_samples
from rlpost.report.embed import fair_quota
from rlpost.report.files import REPORT, replace_text
from rlpost.report.page import assemble
from rlpost.report.summary import duration

STYLES = ("page.css", "rollouts.css", "eval.css")
SCRIPTS = ("dom.js", "scales.js", "theme.js", "list.js", "eval.js")
MAX_SAMPLES = 20_000
MAX_CHARACTERS = 24_000_000


def build_page(folder: Path, max_samples: int = MAX_SAMPLES, max_characters: int = MAX_CHARACTERS) -> Path:
    """(Re)build the page from what lies in the folder; its path.

    Args:
        folder: of an evaluation that has ended.
        max_samples: at most this many samples are carried by the page: the same number of each question, its first.
        max_characters: at most about so many characters of them; longer answers are cut in the middle.

    Raises:
        EvalError: it is none.
    """
    results = read_results(folder)
    path = folder / REPORT
    name = folder.resolve().name
    head = {
        "name": name,
        "model": results["model"],
        "benchmarks": results["benchmarks"],
        "chips": _chips(results),
        "versions": results["versions"],
        "settings": json.dumps(results["settings"], indent=1),
    }
    packed = _samples(folder, max_samples, max_characters)
    replace_text(path, assemble("eval.html", STYLES, SCRIPTS, f"{name} · rlpost eval", head, packed))
    return path


def _chips(results: dict[str, Any]) -> list[list[str]]:
    settings = results["settings"]
    return [
        ["model", Path(results["model"]).name],
        ["samples a question", str(settings["n"])],
        ["temperature", "greedy" if settings["temperature"] == 0 else f"{settings['temperature']:g}"],
        ["prompts", settings["prompts"] + (f", {settings['shots']} examples" if settings["shots"] else "")],
        ["seed", str(settings["seed"])],
        ["answering took", duration(results["wall_s"])],
        ["sampled", f"{results['tokens_per_s']:,.0f} tok/s"],
    ]


def _samples(folder: Path, most: int, characters: int) -> dict[str, Any]:
    samples = list(read_samples(folder).values())
    counts: dict[tuple[str, str], int] = {}
    for sample in samples:
        counts[sample.bench, sample.task] = counts.get((sample.bench, sample.task), 0) + 1
    quota = fair_quota(list(counts.values()), most)
    shown = [sample for sample in samples if sample.index < quota][:most]
    longest = max(400, characters // max(1, len(shown)))
    rows = [
        {
            "bench": sample.bench,
            "task": sample.task,
            "index": sample.index,
            "seed": str(sample.seed),
            "right": sample.right,
            "reward": sample.reward,
            "answer": sample.answer,
            "stop": sample.stop,
            "tokens": sample.tokens,
            "text": _shortened(sample.text, longest),
            "error": sample.error,
            "parts": sample.parts,
        }
        for sample in shown
    ]
    return {
        "samples": rows,
        "tasks": _tasks(folder, {(row["bench"], row["task"]) for row in rows}),
        "all": len(samples),
    }


def _tasks(folder: Path, wanted: set[tuple[Any, Any]]) -> dict[str, dict[str, Any]]:
    path = folder / TASKS
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise EvalError(f"cannot read {path}: {error}") from None
    return {
        f"{row['bench']}\n{row['task']}": {"messages": row["messages"], "reference": row["reference"]}
        for row in rows
        if (row["bench"], row["task"]) in wanted
    }


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    left_out = f"[... {len(text) - most:,} characters; all of them are in samples.jsonl ...]"
    return f"{text[: most // 2]}\n{left_out}\n{text[-most // 2 :]}"
