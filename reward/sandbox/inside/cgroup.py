"""cgroup v2: the kernel's own bound on what a program holds, its buffers in the kernel included, and its own clock of
all that the program's processes used, those included that nobody waited for.

A zygote makes one folder for its programs: in the folder that it is told (``RLPOST_CGROUP``), in its own group where
that may have children, or, as an ordinary user, in the nearest group above that the user was given. Root never leaves
its own group unasked, as that would leave the limits somebody put on it. Left out: cgroup v1, and moving any process
but the programs.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from rlpost.reward.sandbox.inside.usage import Usage
from rlpost.reward.sandbox.limits import Limits

_CONTROLLERS = ("memory", "pids")
_SLACK = 16 << 20  # page tables, stacks, and pages of the interpreter that a program copies by looking at them
_CLEAN_S = 3.0


@dataclass(frozen=True, slots=True)
class Group:
    """One program's group: its folder, and its ``cgroup.procs``, opened with the rights that the zygote has."""

    folder: int
    procs: int

    def join(self) -> None:
        """Move this process in."""
        os.write(self.procs, b"0")

    def usage(self) -> Usage:
        """What its processes use, and have used."""
        ticks = _numbers(self.folder, "cpu.stat")["usage_usec"]
        return Usage(
            int(_read(self.folder, "memory.current")), ticks / 1e6, int(_read(self.folder, "pids.current")) - 1
        )

    def out_of_memory(self) -> bool:
        """Whether the kernel killed in it because it held too much."""
        return _numbers(self.folder, "memory.events").get("oom_kill", 0) > 0

    def close(self) -> None:
        """Let go of the descriptors."""
        os.close(self.folder)
        os.close(self.procs)


@dataclass(slots=True)
class Groups:
    """The folder of one zygote's programs, and the one it lies in; ``path`` is for people, and soon out of sight."""

    folder: int
    parent: int
    path: str
    left: list[str] = field(default_factory=list)
    made: int = 0

    def new(self, limits: Limits, resident: int) -> Group:
        """A group for one program; ``resident``: bytes that the bare interpreter takes."""
        self.clean()
        self.made += 1
        name = str(self.made)
        os.mkdir(name, dir_fd=self.folder)
        self.left.append(name)
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.folder)
        _write(folder, "memory.max", str((limits.memory_mib << 20) + limits.file_bytes + resident + _SLACK))
        _write(folder, "memory.oom.group", "1")
        with contextlib.suppress(OSError):  # a kernel without swap
            _write(folder, "memory.swap.max", "0")
        _write(folder, "pids.max", str(limits.processes + 2))
        return Group(folder, os.open("cgroup.procs", os.O_WRONLY, dir_fd=folder))

    def clean(self) -> None:
        """Remove the groups whose programs are over."""
        for name in list(self.left):
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=self.folder)
                self.left.remove(name)

    def close(self) -> None:
        """Remove everything; waits a little for programs that are being killed."""
        end = time.monotonic() + _CLEAN_S
        while self.left and time.monotonic() < end:
            self.clean()
            time.sleep(0.01)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.basename(self.path), dir_fd=self.parent)


def find(told: str | None) -> Groups | None:
    """A folder for programs in ``told``, or where this process may make one; None where there is none."""
    for parent in [told] if told else _candidates():
        path = f"{parent}/rlpost-{os.getpid()}"
        try:
            if told:
                _enable(parent)
            _sweep(parent)
            os.mkdir(path)
        except OSError:
            continue
        try:
            _enable(path)
            flags = os.O_RDONLY | os.O_DIRECTORY
            groups = Groups(os.open(path, flags), os.open(parent, flags), path)
            groups.new(Limits(), 0).close()  # the controllers are there, and the rights to use them
            return groups
        except OSError:
            with contextlib.suppress(OSError):
                os.rmdir(path)
    return None


def _sweep(parent: str) -> None:
    """Remove what zygotes left that were killed."""
    for name in os.listdir(parent):
        owner = name.removeprefix("rlpost-")
        if owner != name and owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
            with contextlib.suppress(OSError):
                for group in [entry.path for entry in os.scandir(f"{parent}/{name}") if entry.is_dir()]:
                    os.rmdir(group)
                os.rmdir(f"{parent}/{name}")


def _candidates() -> Iterator[str]:
    """This process's own group, and as an ordinary user those above it, where they may have children with bounds."""
    try:
        with open("/proc/self/cgroup") as file:
            own = next(line[3:].strip() for line in file if line.startswith("0::"))
        with open("/proc/self/mountinfo") as file:
            fields = next(line.split() for line in file if " - cgroup2 " in line)
    except (OSError, StopIteration):
        return
    root, mounted = fields[3].rstrip("/"), fields[4]
    if not own.startswith(root) or ".." in own:
        return
    below = [part for part in own.removeprefix(root).split("/") if part]
    for depth in range(len(below), -1, -1):
        folder = "/".join([mounted, *below[:depth]])
        with contextlib.suppress(OSError), open(f"{folder}/cgroup.subtree_control") as file:
            if set(_CONTROLLERS) <= set(file.read().split()):
                yield folder
        if os.geteuid() == 0:
            return


def _enable(folder: str) -> None:
    with open(f"{folder}/cgroup.subtree_control", "w") as file:
        file.write(" ".join(f"+{name}" for name in _CONTROLLERS))


def _read(folder: int, name: str) -> str:
    descriptor = os.open(name, os.O_RDONLY, dir_fd=folder)
    try:
        return os.read(descriptor, 1 << 12).decode()
    finally:
        os.close(descriptor)


def _numbers(folder: int, name: str) -> dict[str, int]:
    lines = (line.split() for line in _read(folder, name).splitlines())
    return {words[0]: int(words[1]) for words in lines}


def _write(folder: int, name: str, text: str) -> None:
    descriptor = os.open(name, os.O_WRONLY, dir_fd=folder)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
