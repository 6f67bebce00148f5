"""From a name to code: a short name, ``module:Name`` or ``path/to/file.py:Name``, the same for everything that a recipe
or the command line names. Each part keeps a ``Registry`` of what it brings.

Left out: how a user's file is found, shipped and loaded (plugins.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlpost.reward.messages import nearest, shortened, shown
from rlpost.reward.plugins import Plugin, PluginError


@dataclass(frozen=True, slots=True)
class Registry:
    """Everything of one kind that has a name.

    Attributes:
        kind: what messages call it, e.g. "algorithm".
        names: short name to ``module:Name``, or to the thing itself.
        base: the class that a class named by the user must be derived from; None: it may be anything.
        own: how users name their own, for messages.
    """

    kind: str
    names: Mapping[str, Any]
    base: type | None = None
    own: str = "module:Name or path/to/file.py:Name"

    def locate(self, name: object, folder: Path | None = None) -> Plugin:
        """The code that ``name`` means, not loaded yet; a file is looked up below ``folder``, then in the current one.

        Raises:
            PluginError: neither a short name (the nearest is given) nor of the other forms, or no such file.
        """
        if isinstance(name, Plugin):
            return name
        if not isinstance(name, str):
            raise PluginError(f"the name of the {self.kind} must be a text, not {shown(name)}")
        if name in self.names:
            return Plugin(self.names[name])
        if ":" not in name:
            raise PluginError(
                f"there is no {self.kind} '{shortened(name)}'{nearest(name, self.names)} (your own: {self.own})"
            )
        return Plugin.locate(name, folder)

    def load(self, name: object, folder: Path | None = None) -> Any:
        """What ``name`` means, loaded.

        Raises:
            PluginError: see ``locate``; also where it cannot be imported, or is not what a ``kind`` must be.
        """
        if isinstance(name, str) and not isinstance(self.names.get(name, ""), str):
            return self.names[name]
        plugin = self.locate(name, folder)
        found = plugin.load()
        if self.base is not None and not (isinstance(found, type) and issubclass(found, self.base)):
            needed = f"{self.base.__module__}.{self.base.__qualname__}"
            raise PluginError(f"'{plugin.target}' is not a class derived from {needed}")
        return found
