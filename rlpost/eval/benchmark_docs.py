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
    for benchmark in CATALOGUE.values():
        if benchmark.env is None:
            lines += ["", *_prompts(benchmark)]
    return "\n".join(lines) + "\n"


def _row(benchmark: Benchmark) -> str:
    rows = ", ".join(f"`{source.name}@{source.split}`" for source in benchmark.sources[:1])
    more = len(benchmark.sources) - 1
    rows = f"{rows} and {more} more subjects" if more > 0 else rows or "`--data`"
    judge = f"`{benchmark.reward}`" if benchmark.env is None else f"`{benchmark.env.target}`"
    rows = rows if benchmark.env is None else "its own tasks"
    return f"| `{benchmark.name}` | {benchmark.about} | {rows} | {judge} | {benchmark.max_new_tokens} |"


def _prompts(benchmark: Benchmark) -> list[str]:
    lines = [f"**{benchmark.name}**, chat:", "", *_quoted(benchmark.prompt), "", "base:", ""]
    lines += [*_quoted(benchmark.base_prompt), "", f"stops: {', '.join(f'`{text!r}`' for text in benchmark.stop)}"]
    if benchmark.shot:
        lines += [f"; a worked example answers `{benchmark.shot!r}`"]
    return lines


def _quoted(text: str) -> list[str]:
    return [f"    {line}".rstrip() for line in text.split("\n")]


if __name__ == "__main__":
    print(render(), end="")
