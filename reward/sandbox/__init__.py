"""The sandbox: model-written Python runs in child processes that the kernel walls in, and nowhere else.

``run`` takes one program, ``Session`` a conversation. A zygote (one pre-warmed interpreter a set of packages) builds a
file system that holds only the Python library, then forks for every program a keeper, which makes fresh namespaces
(user, mount, PID, network, IPC, host name) with an init and the program's process in them. rlimits and a system-call
filter bound each process, the keeper bounds them all together, and the death of the init is the death of all. The
keeper tells the outcome from outside. Where cgroup v2 can be had, the kernel counts for it. Left out: other
languages, GPUs.
"""

from rlpost.reward.sandbox.isolation import ALLOWED, accounting, allow_unsafe, isolation, isolation_problem
from rlpost.reward.sandbox.limits import Limits, Outcome, Reason, SandboxError, SandboxUnavailable
from rlpost.reward.sandbox.oneshot import run
from rlpost.reward.sandbox.session import CallError, Session

__all__ = [
    "ALLOWED",
    "CallError",
    "Limits",
    "Outcome",
    "Reason",
    "SandboxError",
    "SandboxUnavailable",
    "Session",
    "accounting",
    "allow_unsafe",
    "isolation",
    "isolation_problem",
    "run",
]
