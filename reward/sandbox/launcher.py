"""The host's side of starting programs: zygotes, one a set of packages, and the sockets to what they start.

Left out: what is done with a started program (``oneshot``, ``session``).
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rlpost.reward.sandbox.limits import Limits, Outcome, Reason, SandboxError, SandboxUnavailable

_OWN = str(Path(__file__).absolute().parents[3])
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from rlpost.reward.sandbox.inside.zygote import main; main(int(sys.argv[2]), sys.argv[3])"
)
_START_S = 120.0  # imports of heavy packages on a busy machine
_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # programs are reproducible
    "PYTHONDONTWRITEBYTECODE": "1",
    "MALLOC_ARENA_MAX": "1",  # else every thread takes 64 MiB of its address space
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
CGROUP = "RLPOST_CGROUP"
"""The environment variable that names a cgroup v2 folder which programs' groups may be made in."""
_LIBRARIES = "LD_LIBRARY_PATH"  # where the interpreter itself may find its libraries; programs do not see it
_zygotes: dict[tuple[tuple[str, ...], bool, int], _Zygote] = {}
_lock = threading.Lock()


def launch(
    session: bool, limits: Limits, packages: Sequence[str], isolated: bool
) -> tuple[socket.socket, socket.socket]:
    """Start one program's process.

    Returns:
        its channel (a stream socket to the process) and the socket its outcome will come through.

    Raises:
        SandboxUnavailable: the zygote cannot start; the message says why.
    """
    request = json.dumps({"session": session, "limits": asdict(limits)}).encode()
    channel, channel_end = socket.socketpair()
    report, report_end = socket.socketpair()
    with channel_end, report_end:
        for _ in range(2):
            zygote = _zygote(tuple(packages), isolated)
            try:
                descriptors = [channel_end.fileno(), report_end.fileno()]
                socket.send_fds(zygote.control, [request], descriptors)
                if zygote.answers(report):
                    return channel, report
            except OSError:
                pass
            zygote.stop()  # it died (out of memory, killed by hand): a new one takes its place
    raise SandboxError("the sandbox's zygote dies or hangs as soon as it is started (out of memory?)")


def collect(report: socket.socket, within_s: float) -> Outcome:
    """Wait for a program's outcome.

    Raises:
        SandboxError: the keeper failed, or says nothing in time.
    """
    received = bytearray()
    report.settimeout(within_s)
    try:
        while part := report.recv(1 << 16):
            received += part
    except TimeoutError:
        raise SandboxError(f"the sandbox's keeper did not answer within {within_s:.0f} s") from None
    head, separator, body = bytes(received).partition(b"\n")
    if not separator:
        raise SandboxError("the sandbox's keeper died (out of memory?)")
    said = json.loads(head)
    if "lost" in said:
        raise SandboxError(f"the sandbox could not be set up: {said['lost']}")
    out, err = body[: said.pop("out")], body[len(body) - said.pop("err") :]
    reason = Reason(said.pop("reason"))
    return Outcome(reason, out.decode(errors="replace"), err.decode(errors="replace"), **said)


class _Zygote:
    """A running zygote process and the socket it is asked through."""

    def __init__(self, packages: tuple[str, ...], isolated: bool) -> None:
        settings = {"isolated": isolated, "own": _OWN, "packages": packages, "imports": _import_folders(packages)}
        settings["cgroup"] = os.environ.get(CGROUP) or None
        self.control, control_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with control_end:
            arguments = [_OWN, str(control_end.fileno()), json.dumps(settings)]
            self.process = subprocess.Popen(
                [sys.executable, "-S", "-s", "-P", "-X", "utf8", "-c", _BOOT, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**_ENVIRONMENT, **{name: os.environ[name] for name in (_LIBRARIES,) if name in os.environ}},
                cwd="/",
                pass_fds=[control_end.fileno()],
                start_new_session=True,
            )
        self.control.settimeout(_START_S)
        try:
            hello = json.loads(self.control.recv(1 << 16) or b'{"problem": "the zygote died at its start"}')
        except TimeoutError:
            hello = {"problem": f"the zygote did not start within {_START_S:.0f} s"}
        self.control.settimeout(None)
        if "problem" in hello:
            self.stop()
            raise SandboxUnavailable(hello["problem"])
        self.cgroup = str(hello["cgroup"])

    def answers(self, report: socket.socket) -> bool:
        """Whether a keeper has taken up the request, which is the first it says."""
        report.settimeout(0.1)
        end = time.monotonic() + _START_S
        while self.alive and time.monotonic() < end:
            try:
                return report.recv(1) == b"+"
            except TimeoutError:
                continue
        return False

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        """Close its socket; it exits by itself, or is killed."""
        self.control.close()
        try:
            self.process.wait(4.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def cgroup() -> str:
    """The folder of the cgroups that isolated programs are put in here; empty where there is none."""
    return _zygote((), True).cgroup


def _zygote(packages: tuple[str, ...], isolated: bool) -> _Zygote:
    key = (packages, isolated, os.getpid())  # a forked copy of this process starts its own
    with _lock:
        zygote = _zygotes.get(key)
        if zygote is None or not zygote.alive:
            zygote = _zygotes[key] = _Zygote(packages, isolated)
        return zygote


def _import_folders(packages: tuple[str, ...]) -> list[str]:
    """The folders that these top-level packages are imported from, then all others that packages were installed into:
    what a package imports may lie elsewhere than the package itself."""
    folders: list[str] = []
    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"package '{name}' was asked for in the sandbox, but is not installed here")
        place = os.path.dirname(spec.origin) if spec.submodule_search_locations else spec.origin
        folder = os.path.dirname(place)
        folders.append(folder)
    if packages:
        folders += [folder for folder in sys.path if any(Path(folder).glob("*.dist-info"))]
    return list(dict.fromkeys(folders))


@atexit.register
def _stop_all() -> None:
    for (_, _, pid), zygote in list(_zygotes.items()):
        if pid == os.getpid():
            with contextlib.suppress(OSError):
                zygote.stop()
