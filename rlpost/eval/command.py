"""``rlpost eval``: from the command line's words to settings, and what is printed.

Left out: the evaluation itself (run.py).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rlpost.eval.benchmark import EvalError
from rlpost.eval.settings import EvalSettings, settle


def settings_of_options(
    given: dict[str, Any], bench: str, k: str | None, data: list[str], workers: int | None, overrides: list[str]
) -> EvalSettings:
    """Settings from the command line.

    Raises:
        EvalError: an option that is missing or cannot be read.
    """
    names = tuple(name.strip() for name in bench.split(",") if name.strip())
    if given["model"] is None or not names:
        raise EvalError("give a model and --bench, e.g.: rlpost eval MODEL --bench gsm8k,math500 --out evals/one")
    rows = dict(_pair(text) for text in data)
    told = [f"rollout.workers={workers}"] if workers is not None else []
    return settle({**given, "bench": names, "k": _numbers(k), "data": rows}, [*told, *overrides])


def _pair(text: str) -> tuple[str, str]:
    name, separator, path = text.partition("=")
    if not separator or not path:
        raise EvalError(f"--data {text}: give NAME=PATH, e.g. --data gsm8k=data/test.jsonl")
    return name, path


def _numbers(k: str | None) -> tuple[int, ...] | None:
    if k is None:
        return None
    try:
        return tuple(sorted({int(part) for part in k.split(",")}))
    except ValueError:
        raise EvalError(f"--k {k}: give whole numbers, e.g. --k 1,8") from None


def run_evaluation(settings: EvalSettings, out: Path | None) -> None:
    """Evaluate, and print a table."""
    from rlpost.eval.plan import make_plan

    plan = make_plan(settings)

    from rlpost.eval.display import Display, print_results
    from rlpost.eval.run import evaluate

    folder = out or Path("runs") / f"eval-{Path(settings.model).name}-{time.strftime('%Y%m%d-%H%M%S')}"
    with Display() as display:
        results = evaluate(plan, folder, display)
    print_results(results, display.console)
    display.console.print(f"{folder / 'report.html'}", soft_wrap=True)


def compare_folders(first: Path, second: Path) -> None:
    """Print the difference of two evaluations."""
    from rlpost.eval.compare import compare, print_comparison

    print_comparison(compare(first, second))
