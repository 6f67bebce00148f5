"""Whether this host lets programs be isolated: found out once, by isolating one and looking around from inside.

Left out: any reading of version numbers or settings to guess it.
"""

from __future__ import annotations

import functools
import os

from rlpost.reward.sandbox import launcher
from rlpost.reward.sandbox.limits import Limits, SandboxError, SandboxUnavailable

_ADVICE = (
    "What to do: run on Linux 5.14 or newer as root, or as a user who may make user namespaces: `unshare -Urm true` "
    "must work (the settings user.max_user_namespaces, kernel.unprivileged_userns_clone and "
    "kernel.apparmor_restrict_unprivileged_userns decide; in Docker, `--security-opt seccomp=unconfined` or "
    "`--privileged`). Or accept the risk with `sandbox: unsafe` in the recipe (`sandbox=unsafe` on the command line, "
    "`unsafe=True` in Python): what the model writes then runs with your rights, on your files and your network."
)
ALLOWED = {"RLPOST_SANDBOX": "unsafe"}
"""The environment variable that lets a process, and those it starts, go without isolation where there is none."""
_TRIAL = """
import colorsys, ctypes, errno, os, socket
assert os.getpid() == 2 and os.getppid() == 1, "it sees the host's processes"
assert not os.path.exists("/proc/self") and not os.path.exists("/etc"), "it sees the host's files"
for refused in (lambda: socket.socket(), lambda: open("/written", "w"), lambda: os.execv("/bin/true", ["true"])):
    try:
        refused()
    except OSError as error:
        assert error.errno in (errno.EPERM, errno.EROFS, errno.EACCES), error
    else:
        raise AssertionError("what must be refused is not")
"""


def isolation() -> str | None:
    """The mechanism that isolates programs on this host, in words, or None; then ``isolation_problem`` says why."""
    return None if isolation_problem() else "Linux namespaces, a file system of their own, rlimits and seccomp"


def accounting() -> str:
    """Who counts what isolated programs use on this host, in words: the kernel's cgroups, or their keepers."""
    folder = launcher.cgroup()
    return f"cgroup v2 ({folder.rpartition('/')[0]})" if folder else "keepers that look every 2 to 20 ms"


@functools.cache
def isolation_problem() -> str:
    """Why programs cannot be isolated here and what to do about it; empty where they can."""
    try:
        channel, report = launcher.launch(False, Limits(), (), isolated=True)
        with channel, report:
            channel.sendall(_TRIAL.encode())
            channel.shutdown(1)
            outcome = launcher.collect(report, 60.0)
    except (SandboxUnavailable, SandboxError, OSError) as error:
        return f"this host does not let programs be isolated: {error}. {_ADVICE}"
    if not outcome.ok:
        return f"this host does not isolate programs well enough: {outcome.stderr or outcome.detail}. {_ADVICE}"
    return ""


def allow_unsafe(allowed: bool = True) -> None:
    """Let this process, and those that it starts from now on, go without isolation where there is none, as ``sandbox:
    unsafe`` in a recipe asks for."""
    for name, value in ALLOWED.items():
        os.environ[name] = value if allowed else ""


def choose(unsafe: bool) -> bool:
    """Whether to isolate: always where the host can.

    Raises:
        SandboxUnavailable: it cannot, and neither ``unsafe`` nor ``allow_unsafe`` permits to go without.
    """
    problem = isolation_problem()
    if problem and not (unsafe or all(os.environ.get(name) == value for name, value in ALLOWED.items())):
        raise SandboxUnavailable(problem)
    return not problem
