"""docs/recipes.md, written from the config classes themselves so that the two cannot disagree.

    python -m rlpost.recipe_docs > docs/recipes.md

Left out: prose about methods (docs/algorithms.md).
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from rlpost.algorithms.d3s import D3SConfig
from rlpost.algorithms.registry import ALGORITHMS
from rlpost.learner.config import LisaConfig
from rlpost.recipe import Recipe
from rlpost.reward.validation import known_keys, submodel
from rlpost.rollout.diffusion.config import DiffusionConfig

HEAD = """# Recipe keys

A recipe is YAML. Unknown keys are errors that name the nearest known key and the line. Any key can be set on the
command line: `rlpost train recipe.yaml batch.tasks=8 learner.optimizer.lr=1e-5`. This page is written by
`python -m rlpost.recipe_docs > docs/recipes.md`; a recipe has {count} keys, and each algorithm its own; the engine of
masked-diffusion models has five more.
"""


def _default(info: Any) -> str:
    if info.is_required():
        return "required"
    value = info.default_factory() if info.default is PydanticUndefined else info.default
    if isinstance(value, BaseModel):
        return ""
    text = "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`"


def _rows(model: type[BaseModel], prefix: str) -> tuple[list[str], list[tuple[str, type[BaseModel]]]]:
    rows, children = [], []
    for name, info in model.model_fields.items():
        child = submodel(info.annotation)
        if child is not None:
            children.append((f"{prefix}{name}", child))
        else:
            rows.append(f"| `{prefix}{name}` | {_default(info)} | {info.description or ''} |")
    return rows, children


def _section(title: str, model: type[BaseModel], prefix: str) -> list[str]:
    rows, children = _rows(model, prefix)
    lines = [f"\n## {title}\n", (model.__doc__ or "").strip(), ""] if title else [""]
    if rows:
        lines += ["| key | default | meaning |", "|---|---|---|", *rows]
    for name, child in children:
        lines += _section(f"`{name}`", child, f"{name}.")
    return lines


def render() -> str:
    """The whole page."""
    lines = [HEAD.format(count=len(known_keys(Recipe))), *_section("", Recipe, "")]
    for name in sorted(ALGORITHMS.names):
        algorithm = ALGORITHMS.load(name)
        if algorithm.Config is not None:
            lines += _section(f"`algorithm: {{name: {name}}}`", algorithm.Config, "algorithm.")
    lines += _section("`learner.optimizer: {name: lisa}`", LisaConfig, "learner.optimizer.options.")
    lines += _section("`engine` of masked-diffusion models", DiffusionConfig, "engine.")
    lines += _section("`algorithm.select: {name: d3s}`", D3SConfig, "algorithm.select.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(render(), end="")
