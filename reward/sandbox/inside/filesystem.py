"""The file system a program sees: the Python library read-only, three harmless devices, and one scratch folder.

Built once in the zygote's own mount namespace; each program adds a fresh scratch folder of its own. There is no
/proc, no /etc, no /usr. Left out: shared libraries; the zygote loads what the standard library needs beforehand.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from rlpost.reward.sandbox.inside import kernel

SCRATCH = "/tmp"
_ASIDE = "/aside"  # where what lies below SCRATCH on the host is kept while the scratch folder is laid over it
_DEVICES = ("/dev/null", "/dev/urandom", "/dev/random")  # mapping /dev/zero makes memory that no limit counts
_BASE = "/tmp"  # where the new root is put together, in a mount namespace that nobody else sees
_MASKED = ("site-packages", "dist-packages")  # third-party packages that may lie below the standard library
_below_scratch: list[str] = []  # of the paths that are shown; forked processes have it too


def enter(library: Iterable[str], packages: Iterable[str]) -> None:
    """Make a root that holds only these paths, kept at their place, and move this process into it.

    Needs a mount namespace of its own and the right to mount in it.

    Args:
        library: folders and files of the standard library; third-party packages below them are hidden.
        packages: folders and files of third-party packages to be seen all the same.
    """
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    # all are opened first: the new root hides whatever lies below its mount point
    shown = [(path, os.open(path, os.O_PATH)) for path in (*_outermost(library), *_DEVICES)]
    extra = [(path, os.open(path, os.O_PATH)) for path in _outermost(packages)]
    kernel.mount("tmpfs", _BASE, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=0755")
    for path, descriptor in shown:
        _bind(descriptor, _BASE + path)
        for folder in (f"{_BASE}{path}/{name}" for name in _MASKED):
            if os.path.isdir(folder):
                kernel.mount("tmpfs", folder, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=64k,mode=0755")
    for path, descriptor in extra:
        _bind(descriptor, _BASE + path)
    _below_scratch[:] = [path for path, _ in (*shown, *extra) if path.startswith(SCRATCH + "/")]
    os.makedirs(_BASE + SCRATCH, exist_ok=True)
    os.mkdir(_BASE + _ASIDE)
    os.symlink(SCRATCH, _BASE + "/dev/shm")  # POSIX semaphores (multiprocessing.Lock) live there
    kernel.pivot_root(_BASE)
    kernel.make_read_only("/")


def mount_scratch(size: int) -> None:
    """A fresh scratch folder of ``size`` bytes for this mount namespace, as its current directory. It is empty but for
    libraries that are installed below it on the host, as in an environment under /tmp."""
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    if _below_scratch:
        kernel.mount(SCRATCH, _ASIDE, "", kernel.MS_BIND | kernel.MS_REC)
    kernel.mount("tmpfs", SCRATCH, "tmpfs", flags, f"size={size},nr_inodes=4096,mode=0777")
    for path in _below_scratch:
        _show(_ASIDE + path.removeprefix(SCRATCH), path)
    if _below_scratch:
        kernel.unmount(_ASIDE)
    os.chdir(SCRATCH)


def _outermost(paths: Iterable[str]) -> list[str]:
    """The existing paths that do not lie below another of them."""
    kept: list[str] = []
    for path in sorted({os.path.abspath(path) for path in paths if os.path.exists(path)}):
        if not any(path.startswith(outer + "/") for outer in kept):
            kept.append(path)
    return kept


def _bind(descriptor: int, target: str) -> None:
    """Show an open file or folder, and all that is mounted below it, at ``target``."""
    _show(f"/proc/self/fd/{descriptor}", target)
    os.close(descriptor)


def _show(source: str, target: str) -> None:
    """Show a file or folder, and all that is mounted below it, at ``target``, which is made."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o444))
    kernel.mount(source, target, "", kernel.MS_BIND | kernel.MS_REC)
