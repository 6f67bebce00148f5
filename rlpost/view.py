"""A run folder in the terminal: what came of it, its last steps, its best and worst rollouts, and the way to its page.

Left out: curves (the page has them), and runs that are not on this machine.
"""

from __future__ import annotations

import math
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from rlpost.report.files import ReportError, existing_run
from rlpost.report.metrics import read_metrics
from rlpost.report.page import build_report
from rlpost.report.result import Evaluation, ResultRecord
from rlpost.report.rollouts import read_rollouts, rollout_files
from rlpost.report.summary import duration, outcome, read_recipe, recipe_chips, status

ViewError = ReportError
"""There is nothing to view, or it is damaged; the message is for the user."""

LAST_STEPS = 8
CONTEXT_END = 150
"""Tokens shown of a long prompt or observation, at either end."""
COLUMNS = (
    ("step", "step", "{:.0f}"),
    ("reward/mean", "reward", "{:.3f}"),
    ("success/mean", "success", "{:.1%}"),
    ("loss", "loss", "{:.3g}"),
    ("entropy", "entropy", "{:.3f}"),
    ("kl_old", "KL", "{:.2g}"),
    ("grad_norm", "grad norm", "{:.3g}"),
    ("gap/logprob_abs", "gap", "{:.1e}"),
    ("time/step_s", "s/step", "{:.2f}"),
)
POLICY_STYLES = ((0.9, "green"), (0.5, "cyan"), (0.1, "yellow"), (0.0, "red"))
"""Colour of a policy token whose probability when sampled was at least this."""


def view(run: Path, html: bool = False, port: int | None = None, console: Console | None = None) -> Path:
    """Rebuild ``report.html`` of a run, finished or not, and show the run in the terminal.

    Args:
        run: the run folder.
        html: only print the page's path.
        port: then serve the page on this port of this machine (0: any free one), until interrupted.
        console: where to print.

    Returns:
        Path of the page.

    Raises:
        ViewError: no such run, or a damaged file in it.
    """
    console = console or Console(highlight=False)
    page = build_report(existing_run(run))
    if html:
        console.out(str(page))
    else:
        _show(run, console)
        console.print(Text.assemble("\nCurves and all rollouts: ", (str(page), "bold")), soft_wrap=True)
    if port is not None:
        serve(page, port, console)
    return page


def print_result(result: ResultRecord, folder: Path, console: Console | None = None) -> None:
    """What a finished run came to, in a few lines, and where everything lies."""
    console = console or Console(highlight=False)
    found = {
        "before": result.eval_before,
        "after": result.eval_after,
        "greedy_before": result.greedy_before,
        "greedy_after": result.greedy_after,
    }
    evaluations = {name: evaluation for name, evaluation in found.items() if evaluation is not None}
    if evaluations:
        console.print(_evaluations(evaluations))
    console.print(f"{result.steps} steps in {duration(result.wall_s)}, seed {result.seed}")
    console.print(Text.assemble("Everything is in ", (str(folder), "bold"), "; open report.html"), soft_wrap=True)


def serve(page: Path, port: int, console: Console) -> None:
    """Answer requests for the page on the loopback address until interrupted; it is read anew for each.

    Raises:
        ViewError: the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page.read_bytes() if self.path == "/" else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Requests are nobody's news."""

    try:
        server = HTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise ViewError(
            f"port {port} cannot be used ({error.strerror}); give another, or 0 for any free one"
        ) from error
    console.print(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C ends it)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


def _show(run: Path, console: Console) -> None:
    rows = read_metrics(run)
    _, recipe = read_recipe(run)
    result, evaluations = outcome(run)
    console.print(Text.assemble((run.resolve().name, "bold"), "  ", status(result, rows, recipe)))
    console.print(Text("   ".join(f"{name} {value}" for name, value in recipe_chips(recipe)), "dim"))
    if evaluations:
        console.print(_evaluations(evaluations))
    if result is not None:
        console.print(f"wall time {duration(result.wall_s)}")
    if rows:
        console.print(_steps(rows[-LAST_STEPS:]))
    extremes = _extremes(run)
    if extremes:
        legend = [(f"  p >= {bound:g}", f"bold {colour}") for bound, colour in POLICY_STYLES]
        console.print(Text.assemble("\nTokens of the policy by their probability when sampled:", *legend))
    for title, record in extremes:
        console.print(Rule(Text(f"{title}: {_facts(record)}"), align="left", style="dim"))
        console.print(coloured(record), soft_wrap=True)


def _evaluations(evaluations: dict[str, Evaluation]) -> Table:
    table = Table(title="held-out success, with 95 % intervals", title_justify="left", title_style="dim")
    for name in ("", "before", "after", "episodes"):
        table.add_column(name, justify="right" if name else "left")
    for label, before, after in (("sampled", "before", "after"), ("greedy", "greedy_before", "greedy_after")):
        pair = [evaluations.get(before), evaluations.get(after)]
        if any(pair):
            cells = [
                "-" if one is None else f"{one.success:.1%}  [{one.ci95[0]:.1%}, {one.ci95[1]:.1%}]" for one in pair
            ]
            table.add_row(label, *(Text(cell) for cell in cells), str(next(one for one in pair if one).episodes))
    return table


def _steps(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="last steps", title_justify="left", title_style="dim")
    shown = [column for column in COLUMNS if any(row.get(column[0]) is not None for row in rows)]
    for _, name, _ in shown:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*("-" if row.get(key) is None else form.format(row[key]) for key, _, form in shown))
    return table


def _extremes(run: Path) -> list[tuple[str, dict[str, Any]]]:
    """The best and the worst scored rollout of the last step that has any."""
    for step, _ in reversed(rollout_files(run)):
        scored = [record for record in read_rollouts(run, step) if record["reward"] is not None]
        if scored:
            best, worst = max(scored, key=lambda one: one["reward"]), min(scored, key=lambda one: one["reward"])
            return [("best", best)] + ([("worst", worst)] if worst["reward"] < best["reward"] else [])
    return []


def _facts(record: dict[str, Any]) -> str:
    mark = "solved" if record["success"] else "not solved"
    return f"{record['task_id']}, step {record['step']}, reward {record['reward']:g}, {mark}, {record['stop']}"


def coloured(record: dict[str, Any]) -> Text:
    """A rollout's text: what the policy wrote, coloured by its probability when sampled, in a dim and short context."""
    text = Text()
    rows = zip(record["tokens"], record["policy_mask"], record["rollout_logprobs"], strict=True)
    for policy, run in groupby(rows, key=lambda row: bool(row[1])):
        tokens = [(_visible(token), logprob) for token, _, logprob in run]
        if policy:
            text.append_tokens((token, _style(logprob)) for token, logprob in tokens)
        else:
            text.append(_both_ends([token for token, _ in tokens]), "dim")
    return text


def _both_ends(tokens: list[str]) -> str:
    """A context that is too long for a screen loses its middle."""
    left_out = len(tokens) - 2 * CONTEXT_END
    if left_out <= 0:
        return "".join(tokens)
    return f"{''.join(tokens[:CONTEXT_END])}\n[... {left_out:,} tokens ...]\n{''.join(tokens[-CONTEXT_END:])}"


def _style(logprob: float | None) -> str:
    if logprob is None:
        return "bold"
    probability = math.exp(logprob)
    return next(f"bold {colour}" for bound, colour in POLICY_STYLES if probability >= bound)


def _visible(token: str) -> str:
    """Control characters would drive the terminal; they are shown as their code instead."""
    return "".join(letter if letter.isprintable() or letter == "\n" else f"<{ord(letter):02x}>" for letter in token)
