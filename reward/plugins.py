"""How a user's own class or function is named in a recipe, shipped to every actor, and loaded there.

A name is ``package.module:Attribute`` or ``path/to/file.py:Attribute``. A file travels as its path plus its
contents, so an actor in another working directory, or on another node, loads the very same code. It lives on
the ground floor because rewards, environments and algorithms are all named this way. Left out: installing a
user's dependencies (Ray's runtime_env does that), and packages of several files (put those on PYTHONPATH).
"""

from __future__ import annotations

import hashlib
import importlib
import linecache
import sys
import threading
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LOADING = threading.RLock()


class PluginError(ValueError):
    """A named class or function cannot be found or loaded."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A named piece of code, ready to travel.

    Attributes:
        target: as written in the recipe, ``module:Attribute`` or ``file.py:Attribute``.
        contents: the file's text when ``target`` names a file, else ``None``.
    """

    target: str
    contents: str | None = None

    @classmethod
    def locate(cls, target: str, base: Path | None = None) -> Plugin:
        """Read the file that ``target`` names, if it names one; a relative path is looked up below ``base``, then
        in the current directory.

        Raises:
            PluginError: no ``:`` in the name, or no such file.
        """
        place, separator, attribute = target.rpartition(":")
        if not separator or not place or not attribute:
            raise PluginError(f"'{target}' is not of the form module:Name or file.py:Name")
        if not place.endswith(".py"):
            return cls(target)
        candidates = [Path(place)] if base is None else [base / place, Path(place)]
        for candidate in candidates:
            if candidate.is_file():
                return cls(f"{candidate.resolve()}:{attribute}", candidate.read_text())
        raise PluginError(f"no file {place} (looked for {', '.join(str(c.absolute()) for c in candidates)})")

    def load(self) -> Any:
        """Import the module, or run the shipped file once in this process, and return the attribute.

        Raises:
            PluginError: the import fails or the attribute is missing; the message names both.
        """
        place, _, attribute = self.target.rpartition(":")
        try:
            module = (
                importlib.import_module(place) if self.contents is None else _module_from_text(place, self.contents)
            )
        except Exception as error:
            raise PluginError(
                f"cannot import {place} (for '{self.target}'): {type(error).__name__}: {error}"
            ) from error
        try:
            return getattr(module, attribute)
        except AttributeError:
            public = ", ".join(name for name in vars(module) if not name.startswith("_"))
            raise PluginError(f"{place} has no '{attribute}'; it has: {public}") from None


def _module_from_text(place: str, contents: str) -> types.ModuleType:
    """Run ``contents`` as a module once per process; tracebacks show its lines though the file may be elsewhere."""
    digest = hashlib.sha256(contents.encode()).hexdigest()[:12]
    name = f"rlpost_user_{Path(place).stem}_{digest}"
    with _LOADING:  # environments load their code in threads: none may see a module that is still being run
        return sys.modules[name] if name in sys.modules else _run_as_module(name, place, contents)


def _run_as_module(name: str, place: str, contents: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__file__ = place
    linecache.cache[place] = (len(contents), None, contents.splitlines(keepends=True), place)
    sys.modules[name] = module
    try:
        exec(compile(contents, place, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module
