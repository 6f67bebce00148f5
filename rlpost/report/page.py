"""``report.html``: one offline file with the result, the curves and the rollouts of a run.

Style, scripts and data are inline and a content-security policy admits nothing else: no request ever leaves the page,
and of all scripts in the file only ours, named by their hash, may run. Whatever a model wrote travels compressed
(rollouts) or with every ``<`` escaped (the rest), and the page only ever makes text nodes of it. Left out: a server,
and editing.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rlpost.report.curves import curves
from rlpost.report.embed import embed_rollouts
from rlpost.report.files import REPORT, existing_run, replace_text
from rlpost.report.metrics import read_metrics
from rlpost.report.result import Evaluation
from rlpost.report.summary import duration, outcome, read_recipe, recipe_chips, sources, status

STYLES = ("page.css", "rollouts.css")
SCRIPTS = ("dom.js", "scales.js", "theme.js", "charts.js", "head.js", "tokens.js", "list.js", "rollouts.js", "main.js")
"""In this order; together they are one script."""


def build_report(folder: Path, max_rollouts: int = 2000, max_tokens: int = 2_000_000) -> Path:
    """(Re)build ``report.html`` from what lies in a run folder, be the run finished or not.

    Args:
        folder: the run folder.
        max_rollouts: at most this many logged rollouts are carried by the page, and the page says so.
        max_tokens: at most about this many tokens of them.

    Returns:
        Path of the page.

    Raises:
        ReportError: no run folder, or a damaged file in it.
    """
    existing_run(folder)
    rollouts = embed_rollouts(folder, max_rollouts, max_tokens)
    path = folder / REPORT
    replace_text(path, render(run_data(folder), rollouts))
    return path


def run_data(folder: Path) -> dict[str, Any]:
    """Everything the page shows apart from rollouts, as plain JSON values."""
    rows = read_metrics(folder)
    text, recipe = read_recipe(folder)
    result, evaluations = outcome(folder)
    mixture = sources(folder)
    return {
        "name": folder.resolve().name,
        "status": status(result, rows, recipe),
        "chips": recipe_chips(recipe, rollouts=mixture is None),
        "sources": mixture,
        "recipe": text,
        "evaluations": {name: _evaluation(found) for name, found in evaluations.items()},
        "wall": duration(result.wall_s) if result else None,
        "versions": result.versions if result else {},
        "steps": len(rows),
        "curves": curves(rows),
    }


def render(run: dict[str, Any], rollouts: dict[str, Any]) -> str:
    """The page as text."""
    return assemble("page.html", STYLES, SCRIPTS, f"{run['name']} · rlpost", run, rollouts)


def assemble(
    template: str,
    styles: Sequence[str],
    scripts: Sequence[str],
    title: str,
    head: dict[str, Any],
    packed: dict[str, Any],
) -> str:
    """One self-contained page from assets: ``head`` travels as JSON, ``packed`` compressed; both are plain values."""
    style = "\n".join(_asset(name) for name in styles)
    script = '"use strict";\n(() => {\n' + "\n".join(_asset(name) for name in scripts) + "})();\n"
    small = gzip.compress(json.dumps(packed, separators=(",", ":")).encode(), 6, mtime=0)
    slots = {
        "title": html.escape(title.encode("utf-8", "replace").decode()),
        "policy": f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'",
        "style": style,
        "run": json.dumps(head, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "rollouts": base64.b64encode(small).decode("ascii"),
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: slots[match[1]], _asset(template))


def _evaluation(found: Evaluation) -> dict[str, Any]:
    return {"success": found.success, "episodes": found.episodes, "ci95": list(found.ci95)}


def _asset(name: str) -> str:
    return resources.files("rlpost.report").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
