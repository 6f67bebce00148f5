"""How a user's own class or function is named in a recipe, shipped to every process, and loaded there.

A name is ``package.module:Attribute`` or ``path/to/file.py:Attribute``. A user's own code travels with the folder it is
in (packages.py), so that it finds the files beside it in every process, on any node and from any working directory. It
lives in the lowest layer because rewards, environments and algorithms are all named this way. Left out: short names
(registry.py), and installing what the code needs.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlpost.reward.messages import shortened
from rlpost.reward.packages import Package, PackageError, homes


class PluginError(ValueError):
    """A named class or function cannot be found or loaded."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A named piece of code, ready to travel.

    Attributes:
        target: ``module:Attribute``, or ``/absolute/file.py:Attribute``.
        package: the folder it is imported from, where that is a user's own; ``None``: it is installed everywhere.
    """

    target: str
    package: Package | None = None

    @classmethod
    def locate(cls, target: str, base: Path | None = None) -> Plugin:
        """Find the file that ``target`` names, if it names one, and read its folder; a relative path is looked up below
        ``base``, then in the current directory. A module found in the current directory, or beside the script that
        runs, brings that folder along.

        Raises:
            PluginError: no ``:`` in the name, no such file, or a folder that is too large to travel.
        """
        place, separator, attribute = target.rpartition(":")
        if not separator or not place or not attribute:
            raise PluginError(f"'{shortened(target)}' is not of the form module:Name or file.py:Name")
        try:
            if not place.endswith(".py"):
                root = _own_root(place)
                return cls(target, Package.of(root) if root else None)
            file = _file(place, base)
            return cls(f"{file}:{attribute}", Package.of(_root(file)))
        except PackageError as error:
            raise PluginError(f"'{target}': {error}") from None

    def beside(self, attribute: str) -> Plugin:
        """Another name of the same module or file."""
        return Plugin(f"{self.target.rpartition(':')[0]}:{attribute}", self.package)

    def load(self) -> Any:
        """Import the module or file, once in this process, and return the attribute.

        Raises:
            PluginError: the import fails or the attribute is missing; the message names both.
        """
        place, _, attribute = self.target.rpartition(":")
        name = place
        if self.package is not None and place.endswith(".py"):
            within = Path(place).relative_to(self.package.folder).with_suffix("")
            name = ".".join([self.package.name, *within.parts])
        try:
            if self.package is not None and name not in sys.modules:
                self.package.focus()
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            said = f"{type(error).__name__}: {shortened(str(error), 300)}"
            where = shortened(place, 200)
            raise PluginError(f"cannot import {where} (for '{shortened(self.target, 200)}'): {said}") from error
        try:
            return getattr(module, attribute)
        except AttributeError:
            public = ", ".join(name for name in vars(module) if not name.startswith("_"))
            raise PluginError(f"{place} has no '{shortened(attribute)}'; it has: {public}") from None


def packages(*values: Any) -> list[Package]:
    """The packages of all plugins among these values, mappings and lists of them included, each once."""
    found: dict[Package, None] = {}
    for value in values:
        if isinstance(value, Plugin):
            found |= {value.package: None} if value.package else {}
        elif isinstance(value, Mapping):
            found |= dict.fromkeys(packages(*value.values()))
        elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
            found |= dict.fromkeys(packages(*value))
    return list(found)


def located(value: Any, folder: Path | None = None) -> Any:
    """An option with every name of a user's own code in it, ``file.py:Name`` or a module of theirs, made a plugin.

    Raises:
        PluginError: see ``Plugin.locate``.
    """
    if isinstance(value, dict):
        return {key: located(one, folder) for key, one in value.items()}
    if isinstance(value, list):
        return [located(one, folder) for one in value]
    if not isinstance(value, str):
        return value
    place, separator, name = value.rpartition(":")
    is_file = ".py:" in value
    is_module = separator and name.isidentifier() and all(part.isidentifier() for part in place.split("."))
    return Plugin.locate(value, folder) if is_file or (is_module and _own_root(place)) else value


def named(value: Any) -> Any:
    """The inverse of ``located``: every plugin's name in its place."""
    if isinstance(value, Plugin):
        return value.target
    if isinstance(value, Mapping):
        return {key: named(one) for key, one in value.items()}
    return [named(one) for one in value] if isinstance(value, list) else value


def _file(place: str, base: Path | None) -> Path:
    candidates = [Path(place)] if base is None else [base / place, Path(place)]
    for candidate in candidates:
        if os.path.isfile(candidate):  # unlike Path.is_file it says no to a name that is too long or has a zero byte
            file = candidate.resolve()
            if "." in file.stem:
                raise PluginError(f"{file}: the name of a file of code has no '.' but the one before py; rename it")
            return file
    looked = ", ".join(shortened(str(candidate.absolute()), 120) for candidate in candidates)
    raise PluginError(f"no file {shortened(place)} (looked for {looked})")


def _root(file: Path) -> Path:
    """The folder imports start from: the file's own, or the one that holds the package it is part of."""
    folder = file.parent
    while (folder / "__init__.py").exists() and folder.parent.name not in ("site-packages", "dist-packages"):
        folder = folder.parent
    return folder


def _own_root(module: str) -> Path | None:
    """The folder a module is imported from, where that is the current directory or the running script's."""
    top = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or top == "rlpost":
        return None
    places = spec.submodule_search_locations or [spec.origin or ""]
    found = {Path(place).resolve().parent for place in places}
    own = (Path.cwd(), Path(sys.argv[0]).resolve().parent)
    # Another folder of theirs may be in front, with a module of the same name.
    there = [root for root in own if (root / top).is_dir() or (root / f"{top}.py").is_file()]
    return next((root for root in there if root in found or found & homes()), None)
