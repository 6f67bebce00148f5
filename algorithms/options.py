"""From a mapping of options to a config, with errors for the person who wrote the recipe.

Every message names the option by its full key and, where a key is unknown, the nearest known one. Left out: line
numbers (the recipe's parser knows those) and the configs themselves.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from rlpost.algorithms.base import AlgorithmError

Config = TypeVar("Config", bound=BaseModel)


def parse_options(model: type[Config], options: Mapping[str, Any], at: str = "") -> Config:
    """Validate ``options`` against ``model``.

    Args:
        model: a pydantic model; ``extra="forbid"`` makes unknown keys errors.
        options: as read from the recipe.
        at: dotted path of the options below ``algorithm``, e.g. ``select``; empty at the top.

    Raises:
        AlgorithmError: one line for each wrong option; ``key`` is the first one's dotted path.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        details = error.errors()
        lines = [_explain(model, detail, at) for detail in details]
        first, _ = _locate(model, details[0])
        raise AlgorithmError("\n".join(lines), key=".".join([*filter(None, [at]), *first]) or None) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or a list of what is known."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known)}"


def _explain(model: type[BaseModel], detail: ErrorDetails, at: str) -> str:
    path, beside = _locate(model, detail)
    key = ".".join(["algorithm", *filter(None, [at]), *path])
    if detail["type"] == "extra_forbidden":
        return f"unknown option {key}{nearest(path[-1], beside)}"
    message = detail["msg"].removeprefix("Value error, ")
    given = detail["input"]
    shown = "" if isinstance(given, (Mapping, BaseModel)) else f" (given: {given!r})"
    return f"{key}: {message}{shown}"


def _locate(model: type[BaseModel], detail: ErrorDetails) -> tuple[list[str], list[str]]:
    """The path of the key at fault, and the keys that are known beside it.

    Pydantic's own path also names members of unions and places in lists; these are no keys and are left out.
    """
    path: list[str] = []
    fields = beside = model.model_fields
    for part in detail["loc"]:
        if part in fields:
            path.append(str(part))
            beside, fields = fields, _fields_below(fields[str(part)].annotation)
    if detail["type"] == "extra_forbidden":
        path.append(str(detail["loc"][-1]))
        beside = fields
    return path, list(beside)


def _fields_below(annotation: Any) -> dict[str, FieldInfo]:
    """The fields of the model that an annotation is, or has among its members; none where it is a plain value."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind.model_fields
    return {}
