"""A recipe as text: YAML with a line number for every key, overrides from the command line, and errors that say where.

Left out: what the keys mean (recipe.py and each part's own config).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlpost.recipe_yaml import YamlError, number_problems, parse
from rlpost.reward.messages import shortened
from rlpost.reward.validation import KeyPath, Problem, dotted


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
        key = dotted(path)
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
        values, lines = parse(text)
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except YamlError as error:
        raise RecipeError(f"{path}{f':{error.line}' if error.line else ''}: {error}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path} must be a mapping of keys; it holds {type(values).__name__}")
    source = RecipeSource(values, lines, path.name, path.parent)
    for override in overrides:
        apply_override(source, override)
    return source


def apply_override(source: RecipeSource, override: str) -> None:
    """Set one key of the source.

    Raises:
        RecipeError: no ``=``, or a value that is not YAML.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(f"'{shortened(override)}' is not of the form dotted.key=value")
    parts = key.split(".")
    place = source.values
    for part in parts[:-1]:
        child = place.get(part)
        if not isinstance(child, dict):
            child = {}
            place[part] = child
        place = child
    try:
        place[parts[-1]], _ = parse(text)
    except YamlError as error:
        raise RecipeError(f"the value of '{shortened(override)}': {error}") from None
    for stale in [path for path in source.lines if path[: len(parts)] == tuple(parts)]:
        del source.lines[stale]
    source.lines.pop(tuple(parts), None)


def explained(problems: Iterable[Problem], source: RecipeSource) -> str:
    """One message of all that is wrong: a line each, with its key and where that stands."""
    return "\n".join(f"{source.where(one.path)}: {shortened(one.message, 600)}" for one in problems)


def check_numbers(source: RecipeSource) -> None:
    """Refuse numbers that cannot be meant, whatever key they stand at.

    Raises:
        RecipeError: one line for each.
    """
    wrong = list(number_problems(source.values))
    if wrong:
        raise RecipeError(explained(wrong[:10], source))
