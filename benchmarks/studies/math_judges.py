"""False positives and negatives of the mathematics judge and of the field's, on the same rows; and its speed.

    rlpost bench math_judges --rows FILE [--peers SITE] [--old CHECKOUT --data DATA] --out DIR

FILE is JSON lines {answer, reference, right, note}, or the project's own table (tests/reward/math_cases.py). SITE holds
the peers, unpacked and not installed, as their pins clash with ours:
``pip install --no-deps --target SITE lighteval verl evalscope==0.17.0 pylatexenc word2number``. That evalscope holds
Qwen2.5-Math's grader, which is no package of its own. lighteval also wants latex2sympy2_extended==1.0.6, so it is run
by itself: that version first on PYTHONPATH, ``--judges lighteval``. With ``--old``, a checkout whose judge is timed
against this one's in turns on GSM8K's and MATH-500's references, right and wrong.
Writes math_judges.json and math_judges.md.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlpost.envs.load import load_rows

Row = tuple[str, str, bool]
Judge = Callable[[str, str], bool]
_NOT_BINDING = ("debatable", "ambiguous", "hard", "?")
_SECONDS = 5  # an answer may take a peer


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, action="append")
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--judges", default="", help="only those whose name contains this")
    parser.add_argument("--old", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--time-only", action="store_true", help=argparse.SUPPRESS)  # by itself, in another checkout
    given = parser.parse_args()
    if given.time_only:
        print(json.dumps(_speed(given.data)))
        return
    found = {path.name: _agreement(_rows(path), given.peers, given.judges) for path in given.rows}
    speeds = _compare_speed(given) if given.old and given.data else {}
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "math_judges.json").write_text(json.dumps({"rows": found, "answers_per_s": speeds}, indent=1))
    text = _report(found, speeds)
    (given.out / "math_judges.md").write_text(text)
    print(text)


def _rows(path: Path) -> list[Row]:
    if path.suffix == ".py":
        table = runpy.run_path(str(path))
        return [(a, b, True) for a, b in table["RIGHT"]] + [(a, b, False) for a, b in table["WRONG"]]
    rows = [row for _, row in load_rows(str(path))]
    binding = [row for row in rows if not any(word in row.get("note", "") for word in _NOT_BINDING)]
    return [(row["answer"], row["reference"], row["right"]) for row in binding]


def _agreement(rows: list[Row], site: Path | None, only: str) -> dict[str, Any]:
    found = {}
    for name, build in _JUDGES.items():
        if only not in name or (name != "rlpost" and site is None):
            continue
        try:
            judge = build(str(site))
        except ImportError as error:
            found[name] = {"missing": str(error)}
            continue
        wrong = [(a, b, right) for a, b, right in rows if _timed(judge, a, b) != right]
        positives = [[a, b] for a, b, right in wrong if not right]
        negatives = [[a, b] for a, b, right in wrong if right]
        found[name] = {"rows": len(rows), "false_positives": positives, "false_negatives": negatives}
    return found


def _timed(judge: Judge, answer: str, reference: str) -> bool:
    """The verdict; an error or a timeout is a refusal, as in the peers' own use."""

    def stop(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(_SECONDS)
    try:
        return bool(judge(answer, reference))
    except Exception:  # whatever a peer raises
        return False
    finally:
        signal.alarm(0)


# --- the judges


def _ours(site: str) -> Judge:
    from rlpost.reward.math import verify

    return lambda answer, reference: verify(answer, reference)


def _math_verify(site: str) -> Judge:
    from math_verify import parse, verify

    return lambda answer, reference: verify(
        parse(f"${reference}$", parsing_timeout=None), parse(answer, parsing_timeout=None), timeout_seconds=None
    )


def _lighteval(site: str) -> Judge:
    for name in ("lighteval", "lighteval.metrics", "lighteval.tasks", "lighteval.tasks.templates", "lighteval.models"):
        _without_init(name, site)
    from lighteval.metrics.utils import extractive_match_utils as utils
    from lighteval.metrics.utils.math_comparison import compare_gold_target
    from lighteval.tasks.requests import Doc
    from lighteval.utils.language import Language

    doc = Doc(query="", choices=[""], gold_index=0)
    kinds = (utils.ExprExtractionConfig(), utils.LatexExtractionConfig())
    regexes = utils.get_extraction_regexes(doc, kinds, Language.ENGLISH)

    def judge(answer: str, reference: str) -> bool:
        gold = utils.extract_target_from_pred(f"${reference}$", regexes, "first_match", "any_match", _SECONDS)
        said = utils.extract_target_from_pred(answer, regexes, "first_match", "any_match", _SECONDS)
        return bool(compare_gold_target(gold, said, 6, timeout_seconds=_SECONDS))

    return judge


def _qwen(site: str) -> Judge:
    for name in ("evalscope", "evalscope.metrics"):
        _without_init(name, site)
    from evalscope.metrics.math_parser import extract_answer, math_equal, strip_answer_string

    return lambda answer, reference: math_equal(
        strip_answer_string(extract_answer(answer)), strip_answer_string(reference)
    )


def _verl(module: str) -> Callable[[str], Judge]:
    def build(site: str) -> Judge:
        for name in ("verl", "verl.utils", "verl.utils.reward_score"):
            _without_init(name, site)
        found = __import__(f"verl.utils.reward_score.{module}", fromlist=["compute_score"])

        def judge(answer: str, reference: str) -> bool:
            score = found.compute_score(answer, reference)
            return bool(score["acc"] if isinstance(score, dict) else score[0] if isinstance(score, tuple) else score)

        return judge

    return build


def _without_init(package: str, site: str) -> None:
    """Let a package's modules be imported without its own first file, which wants the whole framework's packages."""
    module = types.ModuleType(package)
    module.__path__ = [str(Path(site, *package.split(".")))]
    sys.modules.setdefault(package, module)
    if site not in sys.path:
        sys.path.append(site)


_JUDGES: dict[str, Callable[[str], Judge]] = {
    "rlpost": _ours,
    "math-verify alone": _math_verify,
    "lighteval, extractive match": _lighteval,
    "Qwen2.5-Math (in evalscope 0.17.0)": _qwen,
    "verl, math_reward": _verl("math_reward"),
    "verl, math_dapo": _verl("math_dapo"),
    "verl, prime_math": _verl("prime_math"),
}


# --- speed


def _compare_speed(given: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Answers a second of both checkouts' judges, in turns."""
    checkouts = {"old": given.old, "this": Path(__file__).absolute().parents[2]}
    if (checkouts["this"] / "__init__.py").exists():  # reached through the package's link
        checkouts["this"] = checkouts["this"].parent
    found: dict[str, dict[str, list[float]]] = {}
    for name in ("old", "this", "old", "this"):
        environment = os.environ | {"PYTHONPATH": str(checkouts[name])}
        command = [sys.executable, __file__, "--rows", "-", "--out", "-", "--time-only", "--data", str(given.data)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        for bench, speed in json.loads(done.stdout).items():
            found.setdefault(bench, {}).setdefault(name, []).append(speed)
    return found


def _speed(data: Path) -> dict[str, float]:
    from rlpost.reward.math import verify

    verify("1", "1")
    found = {}
    for name, limit in (("gsm8k", 400), ("math500", 300)):
        answers = [str(row["answer"]) for _, row in load_rows(str(data / name / "test.jsonl.gz"))][:limit]
        answers = [answer.rpartition("####")[2].strip() for answer in answers]
        began = time.perf_counter()
        for answer in answers:
            verify(f"so it is $\\boxed{{{answer}}}$", answer)
            verify(f"so it is $\\boxed{{{answer} + 1}}$", answer)
        found[name] = round(2 * len(answers) / (time.perf_counter() - began), 1)
    return found


def _report(found: dict[str, Any], speeds: dict[str, dict[str, list[float]]]) -> str:
    lines = []
    for name, judges in found.items():
        lines += [f"{name}:", "", "| judge | rows | false positives | false negatives |", "|---|---|---|---|"]
        for judge, said in judges.items():
            if "missing" in said:
                lines.append(f"| {judge} | not installed: {said['missing']} | | |")
            else:
                positives, negatives = len(said["false_positives"]), len(said["false_negatives"])
                lines.append(f"| {judge} | {said['rows']} | {positives} | {negatives} |")
        lines.append("")
    for bench, both in speeds.items():
        lines.append(f"{bench}: answers a second, old {both['old']}, this {both['this']}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
