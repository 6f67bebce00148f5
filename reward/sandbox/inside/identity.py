"""Who a program is: a user that owns nothing, and nobody at all outside its own namespaces.

Left out: capabilities (``kernel``) and when each step is due (``keeper``, ``init``).
"""

from __future__ import annotations

import os

from rlpost.reward.sandbox.inside import kernel

_FIRST_UID = 2_000_000_000  # far above any account; each program of a root host runs as a user of its own
_NOBODY = 65534
_INSIDE = 1000


def become_nobody() -> None:
    """Give up root for a user that owns nothing, where this process is root and such users exist."""
    if os.geteuid() != 0:
        return
    for user in (_FIRST_UID + os.getpid(), _NOBODY):
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        except OSError:  # inside a container that knows only a few users
            continue
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # else its own /proc files belong to root
        return


def unshare_with_user(proc: int, flags: int) -> None:
    """Enter a new user namespace, and those in ``flags``; ``proc`` is a descriptor of /proc.

    The one user and group known there stand for those this process has outside.
    """
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER | flags)
    write(proc, "self/setgroups", "deny")
    write(proc, "self/uid_map", f"{_INSIDE} {uid} 1")
    write(proc, "self/gid_map", f"{_INSIDE} {gid} 1")


def write(folder: int, path: str, text: str) -> None:
    """Write one of the kernel's small files, below an open folder."""
    descriptor = os.open(path, os.O_WRONLY, dir_fd=folder)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
