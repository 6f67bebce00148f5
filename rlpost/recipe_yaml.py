"""YAML as plain values that own nothing in common, with the line of every key, within bounds that no recipe needs.

Texts without end, anchors that hold themselves or are repeated without end, and levels without end are refused before
anything is built of them. Left out: what the keys mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import yaml

from rlpost.reward.messages import shortened, shown
from rlpost.reward.validation import KeyPath, Problem, dotted

LARGEST_TEXT = 256 * 2**10
MOST_VALUES = 5_000
DEEPEST = 30
LARGEST_NUMBER = 1e15
"""Beyond it nothing that is counted or timed makes sense, and floating point no longer tells integers apart."""


class YamlError(ValueError):
    """A text that is not YAML, or more than a recipe could be; the message does not name the file.

    Attributes:
        line: 1-based, where one line is at fault.
    """

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def parse(text: str) -> tuple[Any, dict[KeyPath, int]]:
    """The values, and the 1-based line of each key and list item.

    Raises:
        YamlError: see the class.
    """
    if len(text) > LARGEST_TEXT:
        raise YamlError(f"it has {len(text):,} characters, and a recipe has at most {LARGEST_TEXT:,}")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        lines: dict[KeyPath, int] = {}
        if node is not None:
            _record(node, (), lines, [0])
        return None if node is None else _unshared(loader.construct_document(node)), lines
    except YamlError:
        raise
    except RecursionError:
        raise YamlError(f"it is nested deeper than {DEEPEST} levels") from None
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        raise YamlError(f"not valid YAML: {shortened(str(error), 300)}") from None


def _record(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], seen: list[int]) -> None:
    """Note the lines of a node's keys. An anchor counts wherever it is used, so that what is repeated too often, or
    holds itself, is found before it is built."""
    line = node.start_mark.line + 1
    seen[0] += 1
    if seen[0] > MOST_VALUES or len(path) > DEEPEST:
        what = f"nested deeper than {DEEPEST} levels" if len(path) > DEEPEST else f"of more than {MOST_VALUES:,} values"
        raise YamlError(f"it is {what}, or has an anchor (&name) that holds itself or is repeated too often", line)
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise YamlError("a key is a single word, not a list or a mapping", line)
            here = (*path, key_node.value)
            if here in lines:
                raise YamlError(
                    f"key {dotted(here)} stands twice (first at line {lines[here]}); keep one of them", line
                )
            lines[here] = line
            _record(value_node, here, lines, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            _record(item, (*path, index), lines, seen)


def _unshared(value: Any) -> Any:
    """A copy in which every use of an anchor is a value of its own: an override of one must not change the others."""
    if isinstance(value, dict):
        return {key: _unshared(one) for key, one in value.items()}
    return [_unshared(one) for one in value] if isinstance(value, list) else value


def number_problems(value: Any, path: KeyPath = ()) -> Iterator[Problem]:
    """Numbers, anywhere among the values, that are infinite, not a number, or larger than anything could be."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from number_problems(one, (*path, str(key)))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from number_problems(one, (*path, index))
    elif isinstance(value, float) and not math.isfinite(value):
        yield Problem(path, f"must be a finite number, not {value}")
    elif isinstance(value, int | float) and abs(value) > LARGEST_NUMBER:
        yield Problem(path, f"{shown(value)} is out of any range; numbers go to {LARGEST_NUMBER:g}")
