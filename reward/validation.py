"""What is wrong with a config, for the person who wrote it: each key at fault, with a sentence that does not repeat it.

It is in the lowest layer because the recipe, algorithms and evaluations all have configs. Left out: line numbers (the
recipe's source knows those).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rlpost.reward.messages import nearest, shortened, shown

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        path: the key at fault; places in lists are numbers.
        message: what is wrong with it, without the key.
    """

    path: KeyPath
    message: str

    def below(self, *path: str | int) -> Problem:
        """The same, seen from further up."""
        return Problem((*path, *self.path), self.message)

    @property
    def key(self) -> str:
        """The path with dots."""
        return dotted(self.path)

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.path else self.message


def dotted(path: KeyPath) -> str:
    """``a.b.0`` for a path of keys; long ones are cut."""
    return shortened(".".join(shortened(str(part)) for part in path), 200)


def problems(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Every key at fault, in the order of the errors.

    Args:
        error: raised by ``model``.
        model: knows the keys beside an unknown one.
    """
    return list(dict.fromkeys(_problem(item, model) for item in error.errors()))


def _problem(item: ErrorDetails, model: type[BaseModel]) -> Problem:
    if item["type"] == "extra_forbidden":
        above, beside = _walk(model, item["loc"][:-1])
        unknown = str(item["loc"][-1])
        return Problem((*above, unknown), f"unknown key{_suggest(unknown, beside, model)}")
    path, _ = _walk(model, item["loc"])
    if item["type"] == "missing":
        return Problem(path, "this key is required and missing")
    message = item["msg"].removeprefix("Value error, ")
    given = item["input"]
    return Problem(path, message if isinstance(given, Mapping | BaseModel) else f"{message} (given: {shown(given)})")


def _suggest(unknown: str, beside: Iterable[str], model: type[BaseModel]) -> str:
    near = nearest(unknown, beside)
    elsewhere = [key for key in known_keys(model) if key.split(".")[-1] == unknown]
    return f"; did you mean '{elsewhere[0]}'?" if "did you mean" not in near and elsewhere else near


def _walk(model: type[BaseModel], loc: KeyPath) -> tuple[KeyPath, list[str]]:
    """The keys among the parts of pydantic's location, and the keys known below the last of them.

    Pydantic also names members of unions there; these are no keys.
    """
    path: list[str | int] = []
    here: tuple[Any, ...] = (model,)
    for part in loc:
        fields = {
            name: info.annotation for one in _members(here) if _is_model(one) for name, info in one.model_fields.items()
        }
        inner = tuple(arg for one in _members(here) if get_origin(one) is not None for arg in get_args(one))
        if part in fields:
            path, here = [*path, part], (fields[str(part)],)
        elif isinstance(part, int) or any(_is_mapping(one) for one in _members(here)):
            path, here = [*path, part], inner
    while path and isinstance(path[-1], int):  # one of several values of a key: the message shows which
        path.pop()
    return tuple(path), [name for one in _members(here) if _is_model(one) for name in one.model_fields]


def known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """All dotted leaf keys of a config model."""
    keys: list[str] = []
    for name, info in model.model_fields.items():
        child = submodel(info.annotation)
        keys += known_keys(child, f"{prefix}{name}.") if child else [prefix + name]
    return keys


def submodel(annotation: Any) -> type[BaseModel] | None:
    """The config model inside ``X`` or ``X | None``, if there is one; the first of several."""
    return next((one for one in _members((annotation,)) if _is_model(one)), None)


def _members(annotations: Iterable[Any]) -> list[Any]:
    """The annotations, unions and ``Annotated`` taken apart."""
    found: list[Any] = []
    for one in annotations:
        if get_origin(one) is Annotated:
            found += _members(get_args(one)[:1])
        else:
            found += _members(get_args(one)) if get_origin(one) in (Union, UnionType) else [one]
    return found


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_mapping(annotation: Any) -> bool:
    origin = get_origin(annotation) or annotation
    return isinstance(origin, type) and issubclass(origin, Mapping)
