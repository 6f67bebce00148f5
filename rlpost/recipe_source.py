"""A recipe as text: YAML with a line number for every key, overrides from the command line, and errors in words.

Left out: what the keys mean (recipe.py and each part's own config).
"""

from __future__ import annotations

import difflib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

KeyPath = tuple[str | int, ...]


class RecipeError(ValueError):
    """A recipe that cannot be run; the message names the key, its line and what to do."""


@dataclass(slots=True)
class RecipeSource:
    """A parsed recipe and where each key stands.

    Attributes:
        values: the nested mapping.
        lines: 1-based line of each key path; keys given on the command line have none.
        name: the file's name, for messages.
        folder: where relative paths of user code are looked up.
    """

    values: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)
    name: str = "recipe"
    folder: Path = Path(".")

    def where(self, path: KeyPath) -> str:
        """``file.yaml:12, key a.b`` for the path, or for the nearest parent that has a line."""
        key = ".".join(str(part) for part in path)
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return f"{self.name}:{self.lines[path[:end]]}, key {key}"
        return f"{self.name}, key {key}" if key else self.name


def read(path: Path, overrides: list[str]) -> RecipeSource:
    """Read a YAML file and apply ``dotted.key=value`` overrides.

    Raises:
        RecipeError: no such file, not YAML, not a mapping, a key given twice, or an override without ``=``.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror or error}") from None
    try:
        node = yaml.compose(text)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict) or not isinstance(node, yaml.MappingNode):
        raise RecipeError(f"{path} must be a mapping of keys; it holds {type(values).__name__}")
    source = RecipeSource(values, {}, path.name, path.parent)
    _record_lines(node, (), source)
    for override in overrides:
        apply_override(source, override)
    return source


def _record_lines(node: yaml.Node, path: KeyPath, source: RecipeSource) -> None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            here = (*path, key_node.value)
            if here in source.lines:
                raise RecipeError(
                    f"{source.name}:{key_node.start_mark.line + 1}: key {'.'.join(map(str, here))} stands twice "
                    f"(first at line {source.lines[here]}); keep one of them"
                )
            source.lines[here] = key_node.start_mark.line + 1
            _record_lines(value_node, here, source)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            source.lines[(*path, index)] = item.start_mark.line + 1
            _record_lines(item, (*path, index), source)


def apply_override(source: RecipeSource, override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(f"'{override}' is not of the form dotted.key=value")
    parts = key.split(".")
    place = source.values
    for part in parts[:-1]:
        child = place.get(part)
        if not isinstance(child, dict):
            child = {}
            place[part] = child
        place = child
    try:
        place[parts[-1]] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"the value of '{override}' is not valid YAML: {error}") from None
    for stale in [path for path in source.lines if path[: len(parts)] == tuple(parts)]:
        del source.lines[stale]
    source.lines.pop(tuple(parts), None)


def explain_validation(error: ValidationError, source: RecipeSource, model: type[BaseModel], at: KeyPath = ()) -> str:
    """Turn pydantic's errors into one message: every wrong key with its line, and the nearest known key."""
    lines = []
    for item in error.errors():
        path = (*at, *(part for part in item["loc"] if not _is_pydantic_tag(part)))
        if item["type"] == "extra_forbidden":
            lines.append(f"{source.where(path)}: unknown key{_suggest(path, model, at)}")
        elif item["type"] == "missing":
            lines.append(f"{source.where(path)}: this key is required and missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            given = "" if isinstance(item["input"], (dict, BaseModel)) else f" (given: {item['input']!r})"
            lines.append(f"{source.where(path)}: {message}{given}")
    return "\n".join(lines)


def _is_pydantic_tag(part: str | int) -> bool:
    """Union members appear in pydantic's locations by class name; they are no recipe keys."""
    return isinstance(part, str) and (part[:1].isupper() or "[" in part)


def _suggest(path: KeyPath, model: type[BaseModel], at: KeyPath) -> str:
    known = list(known_keys(model))
    siblings = _fields_at(model, path[len(at) : -1])
    unknown = str(path[-1])
    near = difflib.get_close_matches(unknown, siblings, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    elsewhere = [key for key in known if key.split(".")[-1] == unknown]
    if elsewhere:
        return f"; did you mean '{elsewhere[0]}'?"
    far = difflib.get_close_matches(".".join(map(str, path)), known, n=1, cutoff=0.0)
    return f"; the nearest known key is '{far[0]}'" if far else ""


def known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """All dotted leaf keys of a config model."""
    keys: list[str] = []
    for name, info in model.model_fields.items():
        child = submodel(info.annotation)
        if child is None:
            keys.append(prefix + name)
        else:
            keys += known_keys(child, f"{prefix}{name}.")
    return keys


def _fields_at(model: type[BaseModel], path: KeyPath) -> list[str]:
    current = [model]
    for part in path:
        found = [one.model_fields[str(part)].annotation for one in current if str(part) in one.model_fields]
        current = [child for annotation in found for child in _submodels(annotation)]
    return list(dict.fromkeys(name for one in current for name in one.model_fields))


def submodel(annotation: Any) -> type[BaseModel] | None:
    """The config model inside ``X`` or ``X | None``, if there is one; the first of several."""
    return next(iter(_submodels(annotation)), None)


def _submodels(annotation: Any) -> list[type[BaseModel]]:
    if typing.get_origin(annotation) is typing.Annotated:
        return _submodels(typing.get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [found for member in typing.get_args(annotation) for found in _submodels(member)]
    return []
