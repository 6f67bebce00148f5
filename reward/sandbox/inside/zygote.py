"""The zygote: one pre-warmed interpreter that walls itself in and forks a keeper for every program.

It never sees a program's text (that goes straight to the program's own process), so nothing of one program is in the
memory the next one is forked from. It is single-threaded, has no environment and no descriptor of the host's but its
control socket, whose end of file makes it exit. Left out: everything that is done once a program (``keeper``).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
from typing import Any

from rlpost.reward.sandbox.inside import cgroup, filesystem, identity, keeper, kernel, seccomp, usage
from rlpost.reward.sandbox.inside.setting import Site
from rlpost.reward.sandbox.limits import Limits

# what programs import most, and what needs shared libraries that will be out of sight
_WARM = """
    array asyncio base64 binascii bisect bz2 calendar cmath collections contextlib copy csv ctypes dataclasses
    datetime decimal enum fractions functools hashlib heapq hmac inspect io itertools json linecache logging lzma
    math multiprocessing numbers operator os pathlib pickle pprint queue random re secrets shutil sqlite3 ssl
    statistics string struct tempfile textwrap threading time timeit traceback types typing unicodedata unittest
    uuid warnings zlib zoneinfo
"""


def main(control_descriptor: int, settings: str) -> None:
    """Warm up, wall in, say so, and serve until the control socket closes.

    Args:
        control_descriptor: a SOCK_SEQPACKET socket to the host.
        settings: JSON ``{"isolated": bool, "own": folder the sandbox's code is imported from, "packages": [names],
            "imports": [folders to import these from], "cgroup": folder that groups may be made in, or null}``.
    """
    control = socket.socket(fileno=control_descriptor)
    wanted = json.loads(settings)
    groups = cgroup.find(wanted["cgroup"])  # while the host's files are in sight
    try:
        site = _prepare(wanted)
    except Exception as error:
        control.send(json.dumps({"problem": f"{error}"}).encode())
        return
    control.send(json.dumps({"cgroup": groups.path if groups else ""}).encode())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are reaped by the kernel
    gc.collect()
    gc.freeze()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 2)
        if not message:
            break
        request, (channel, report) = json.loads(message), descriptors
        group = groups.new(Limits(**request["limits"]), site.resident) if groups else None
        if os.fork() == 0:
            control.close()
            keeper.keep(site, request, channel, report, group)
        if group is not None:
            group.close()
        os.close(channel)
        os.close(report)
    if groups:
        groups.close()


def _prepare(settings: dict[str, Any]) -> Site:
    library = [path for path in sys.path if path != settings["own"]]
    sys.path[:] = [*library, *settings["imports"]]
    for name in _WARM.split():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in settings["packages"]:
        importlib.import_module(name)
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    with contextlib.suppress(OSError):  # needs root; workers of Ray are themselves first in line
        identity.write(proc, "self/oom_score_adj", "0")
    isolated = settings["isolated"]
    user_namespaces = isolated and _can_have_user_namespace(proc)
    if isolated:
        _wall_in(library, _folders(settings["imports"]), proc)
    address_space, resident = usage.own_memory(proc)
    return Site(isolated, user_namespaces, proc, address_space, resident)


def _folders(imports: list[str]) -> list[str]:
    """Where the packages imported so far lie, those that were asked for and all that they import; never our own."""
    found = []
    for name, module in sys.modules.items():
        place = getattr(module, "__file__", None)
        if "." not in name and name != "rlpost" and place:
            top = os.path.dirname(place) if os.path.basename(place).startswith("__init__.") else place
            if os.path.dirname(top) in imports:
                found += [top, f"{os.path.dirname(top)}/{name}.libs"]  # wheels keep shared libraries beside them
    return [path for path in found if os.path.exists(path)]


def _can_have_user_namespace(proc: int) -> bool:
    """Tried in a child, to the point of using its rights: some hosts give such a namespace and no right in it."""
    child = os.fork()
    if child == 0:
        try:
            identity.become_nobody()
            identity.unshare_with_user(proc, keeper.NAMESPACES)
            kernel.mount("tmpfs", filesystem.SCRATCH, "tmpfs", kernel.MS_NOSUID)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def _wall_in(library: list[str], folders: list[str], proc: int) -> None:
    if not seccomp.supported(kernel.MACHINE):
        raise OSError(f"there is no system-call filter for the architecture {kernel.MACHINE}")
    try:
        kernel.unshare(kernel.CLONE_NEWNS)
    except PermissionError:  # not root, or root without the right to mount
        identity.unshare_with_user(proc, kernel.CLONE_NEWNS)
    filesystem.enter(library, folders)
