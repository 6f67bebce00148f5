"""A user's folder as a package: what of it travels to every process, under what name, and how it is found there.

The package is named by a digest of its files, so that a process that was sent it (Ray's ``py_modules``, or PYTHONPATH)
finds exactly those, and one that was not (the driver itself) falls back on the folder. Left out: names of classes and
functions (plugins.py), and handing packages to Ray (rlpost/cluster.py).
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import importlib
import os
import shutil
import sys
import tempfile
import threading
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PREFIX = "rlpost_user_"
LIMIT = 32 * 2**20
"""Bytes that all files of a package may have together."""
LARGEST_DATA = 4 * 2**20
"""Bytes a file that is no Python may have; a larger one stays where it is."""
MOST_SEEN = 20_000
"""Files and folders that are looked at before a folder is taken for something else than a person's code."""
DATA = frozenset(
    {".json", ".jsonl", ".yaml", ".yml", ".txt", ".md", ".jinja", ".jinja2", ".j2", ".csv", ".tsv", ".toml"}
)
NOT_CODE = frozenset({"__pycache__", "node_modules", "runs", "site-packages"})
MARKS = ("pyvenv.cfg", "metrics.jsonl", "results.json", "model.safetensors", "model.safetensors.index.json")
"""Files by which a virtual environment, a run, an evaluation or a model is known: none of those is code."""

_LOCK = threading.RLock()


class PackageError(ValueError):
    """A folder cannot travel, or did not arrive; the message names it and says what to do."""


@dataclass(frozen=True, slots=True)
class Package:
    """The files of one folder.

    Attributes:
        name: ``rlpost_user_`` and a digest of the files' paths and contents.
        folder: the folder on the machine where the recipe was read.
    """

    name: str
    folder: str

    @classmethod
    def of(cls, folder: Path) -> Package:
        """Read what travels of ``folder`` and keep a copy of it until this process ends.

        Raises:
            PackageError: the folder is larger than LIMIT, or cannot be read.
        """
        try:
            found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in _files(folder)}
        except OSError as error:
            raise PackageError(
                f"cannot read {error.filename}, which travels with the code in {folder}: {error}"
            ) from None
        digest = hashlib.sha256()
        for name, content in sorted(found.items()):
            digest.update(f"{name}\0{len(content)}\0".encode(errors="surrogateescape") + content)
        package = cls(f"{PREFIX}{digest.hexdigest()[:16]}", str(folder))
        _keep_copy(package.name, found)
        return package

    @property
    def copy(self) -> Path:
        """The copy that this process keeps, a folder called like the package."""
        return _copies() / self.name

    def focus(self) -> None:
        """Let this process import from the package: its files below its name, and each beside the others.

        The folder goes behind everything installed, so that no file of it ever stands before a package of that name,
        and before folders of other packages, so that code finds the file beside it.

        Raises:
            PackageError: neither was the package sent here nor is the folder on this machine.
        """
        home = str(self._home())
        with _LOCK:
            others = [entry for entry in _HOMES if entry != home]
            # A folder that was read once more has changed: what was imported from it is out of date.
            _forget(others if self.name in sys.modules else [*others, home])
            _put_behind_what_is_installed(home)
            if self.name not in sys.modules:
                module = types.ModuleType(self.name)
                module.__path__ = [home]
                sys.modules[self.name] = module
            importlib.invalidate_caches()

    def _home(self) -> Path:
        for entry in sys.path:
            if (Path(entry) / self.name).is_dir():
                return Path(entry) / self.name
        if Path(self.folder).is_dir():
            return Path(self.folder)
        raise PackageError(
            f"the code in {self.folder} did not come to this process ({self.name} is not on its path). Where Ray was "
            "started before rlpost, start it with this folder, or let rlpost connect by cluster.address"
        )


_HOMES: dict[str, frozenset[str]] = {}
"""Folders of packages that this process imports from, the one asked for last first, and what was imported before."""


def _put_behind_what_is_installed(home: str) -> None:
    """Make a folder the first of ``_HOMES`` on the path; the current directory stays last where it is last."""
    before = _HOMES.pop(home, None)
    if before is None:
        before = frozenset(sys.modules)
        if home in sys.path[:-1]:  # a program of the user's put it where they want it
            return
    last = [sys.path[-1]] if sys.path[-1] == os.getcwd() and sys.path[-1] not in (*_HOMES, home) else []
    managed = {home, *_HOMES, *last}
    others = dict(_HOMES)
    _HOMES.clear()
    _HOMES.update({home: before, **others})
    sys.path[:] = [entry for entry in sys.path if entry not in managed] + [*_HOMES, *last]


def homes() -> set[Path]:
    """Folders of packages that this process imports from."""
    return {Path(home).resolve() for home in _HOMES}


def _forget(homes: list[str]) -> None:
    """Let the next import of a plain name that came from one of these folders look for it once more."""
    for name, module in list(sys.modules.items()):
        top, file = name.partition(".")[0], getattr(module, "__file__", None)
        for home in homes if isinstance(file, str) and top != "rlpost" else ():
            own = str(file).startswith((os.path.join(home, top) + os.sep, os.path.join(home, f"{top}.py")))
            if own and name not in _HOMES.get(home, frozenset(sys.modules)):
                sys.modules.pop(name, None)


def _files(folder: Path) -> Iterator[Path]:
    """The files of a folder that travel: Python, and small files of text and data."""
    seen = size = 0
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _is_left_out(Path(parent) / name)]
        seen += len(folders) + len(names)
        for name in names:
            path = Path(parent) / name
            if not _travels(path):
                continue
            size += path.stat().st_size
            if size <= LIMIT:
                yield path
        if size > LIMIT or seen > MOST_SEEN:
            limit = f"{MOST_SEEN:,} files" if seen > MOST_SEEN else f"{LIMIT // 2**20} MiB of code and data"
            raise PackageError(
                f"{folder} holds more than {limit}, and the folder of your own code is sent to every process. "
                "Put that code into a folder of its own, with the few files it needs beside it"
            )


def _is_left_out(folder: Path) -> bool:
    return folder.name.startswith(".") or folder.name in NOT_CODE or any((folder / mark).exists() for mark in MARKS)


def _travels(path: Path) -> bool:
    if path.name.startswith(".") or not path.is_file():
        return False
    return path.suffix == ".py" or (path.suffix in DATA and path.stat().st_size <= LARGEST_DATA)


@functools.cache
def _copies() -> Path:
    """Where this process keeps its copies."""
    folder = tempfile.mkdtemp(prefix="rlpost-code-")
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)
    return Path(folder)


def _keep_copy(name: str, files: dict[str, bytes]) -> None:
    with _LOCK:
        target = _copies() / name
        if target.exists():
            return
        for relative, content in files.items():
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            (target / relative).write_bytes(content)
