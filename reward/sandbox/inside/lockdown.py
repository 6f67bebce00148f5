"""The last locks, in the program's own process: descriptors, resource limits, interpreter state, system-call filter.

Left out: namespaces and capabilities; those are gone already.
"""

from __future__ import annotations

import math
import os
import resource
import site as interpreter_site
import sys

from rlpost.reward.sandbox.inside import kernel, seccomp, usage
from rlpost.reward.sandbox.inside.setting import Ends, Site
from rlpost.reward.sandbox.limits import Limits

CHANNEL = 3


def enter(site: Site, limits: Limits, ends: Ends) -> None:
    """Lock this process in for good."""
    os.setsid()  # no process of ours is in its group
    _tidy_descriptors(ends)
    _set_limits(site, limits)
    _tidy_interpreter()
    if site.isolated:
        kernel.install_filter(seccomp.assemble(kernel.MACHINE))


def _tidy_descriptors(ends: Ends) -> None:
    """0 is /dev/null, 1 and 2 the pipes, 3 the channel, and nothing else is open."""
    kept = (os.open("/dev/null", os.O_RDONLY), ends.out, ends.err, ends.channel)
    high = [os.dup2(descriptor, 100 + place) for place, descriptor in enumerate(kept)]
    for place, descriptor in enumerate(high):
        os.dup2(descriptor, place, inheritable=place != CHANNEL)
    os.closerange(CHANNEL + 1, 1 << 20)
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, closefd=False, errors="backslashreplace")  # type: ignore[misc]


def _set_limits(site: Site, limits: Limits) -> None:
    cpu_s = math.ceil(limits.cpu_s)
    processes = min(limits.processes, max(2, limits.memory_mib // usage.LEAST_MIB))
    bounds = {
        resource.RLIMIT_AS: (site.address_space + (limits.memory_mib << 20),) * 2,
        resource.RLIMIT_FSIZE: (limits.file_bytes,) * 2,
        resource.RLIMIT_CPU: (cpu_s, cpu_s + 1),  # a signal that can be caught, then one that cannot
        resource.RLIMIT_STACK: (8 << 20,) * 2,
        resource.RLIMIT_NOFILE: (usage.descriptors(limits.memory_mib, processes),) * 2,
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_MEMLOCK: (0, 0),
        resource.RLIMIT_SIGPENDING: (256, 256),  # timers too, which the kernel holds
    }
    if site.isolated:  # else it would count all processes of the user
        ours = 2 if site.user_namespaces else 1  # init is in the count, and so is a keeper that gave up root
        bounds[resource.RLIMIT_NPROC] = (processes + ours,) * 2
    for kind, (soft, hard) in bounds.items():
        given = resource.getrlimit(kind)[1]
        if given != resource.RLIM_INFINITY:
            soft, hard = min(soft, given), min(hard, given)
        resource.setrlimit(kind, (soft, hard))


def _tidy_interpreter() -> None:
    """Look like a fresh interpreter: no modules of ours, no arguments, the scratch folder first on the path."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "rlpost"]:
        del sys.modules[name]
    interpreter_site.setquit()
    scratch = os.getcwd()
    sys.argv[:] = [f"{scratch}/program.py"]
    sys.path.insert(0, scratch)
    os.environ.clear()
    os.environ.update({"HOME": scratch, "TMPDIR": scratch, "LANG": "C.UTF-8", "TZ": "UTC"})
