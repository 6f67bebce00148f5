"""The benchmarks as Markdown, for docs/evaluation.md: ``python -m rlpost.eval.benchmark_docs``.

Left out: everything else on that page.
"""

from __future__ import annotations

from rlpost.eval.benchmark import Benchmark
from rlpost.eval.catalogue import CATALOGUE


def render() -> str:
    """A table of all benchmarks, and below it every default prompt word by word."""
    lines = ["| `--bench` | what | rows on the hub | judged by | tokens |", "|---|---|---|---|---|"]
    lines += [_row(benchmark) for benchmark in CATALOGUE.values()]
    alike: dict[tuple[object, ...], list[Benchmark]] = {}
    for benchmark in CATALOGUE.values():
        if benchmark.env is None:
            key = (benchmark.prompt, benchmark.base_prompt, benchmark.stop, benchmark.shot)
            alike.setdefault(key, []).append(benchmark)
    for group in alike.values():
        lines += ["", *_prompts(group)]
    return "\n".join(lines) + "\n"


def _row(benchmark: Benchmark) -> str:
    rows = ", ".join(f"`{source.name}@{source.split}`" for source in benchmark.sources[:1])
    more = len(benchmark.sources) - 1
    rows = f"{rows} and {more} more subjects" if more > 0 else rows or "`--data`"
    judge = f"`{benchmark.reward}`" if benchmark.env is None else f"`{benchmark.env.target}`"
    rows = rows if benchmark.env is None else "its own tasks"
    return f"| `{benchmark.name}` | {benchmark.about} | {rows} | {judge} | {benchmark.max_new_tokens} |"


def _prompts(alike: list[Benchmark]) -> list[str]:
    """The prompts that some benchmarks have in common."""
    first = alike[0]
    names = ", ".join(f"**{benchmark.name}**" for benchmark in alike)
    shot = f" A worked example's answer: `{first.shot!r}`." if first.shot else ""
    lines = [f"{names}. Chat:", "", *_quoted(first.prompt), "", "Base:", "", *_quoted(first.base_prompt)]
    return [*lines, "", f"Base answers end at {' '.join(f'`{text!r}`' for text in first.stop)}.{shot}"]


def _quoted(text: str) -> list[str]:
    return [f"    {line}".rstrip() for line in text.split("\n")]


if __name__ == "__main__":
    print(render(), end="")
