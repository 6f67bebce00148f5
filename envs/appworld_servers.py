"""World servers: one child process a slot, bound to 127.0.0.1, that never outlives the process that started it.

A slot's server serves one episode after another; one that failed is killed and replaced. Where the number of slots is
not given it follows from the memory that the first server takes once it has a world. Left out: what is said to a
server (appworld_client.py).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rlpost.envs.base import EnvError

SHARE_OF_MEMORY = 0.7
"""Of what is available, that servers may take together."""
LOG_LINES = 8
_TRIES = 3
_BOOT = """
import ctypes, os, resource, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: die with the parent, however it dies
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
for kind, room in ((resource.RLIMIT_DATA, 0), (resource.RLIMIT_AS, 4 << 30)):  # room for libraries and reserves
    most = resource.getrlimit(kind)[1]
    bound = int(sys.argv[2]) + room
    bound = bound if most == resource.RLIM_INFINITY else min(bound, most)
    resource.setrlimit(kind, (bound, bound))
try:
    open("/proc/self/oom_score_adj", "w").write("1000")  # where memory runs out, a server goes first
except OSError:
    pass
os.execv(sys.argv[3], sys.argv[3:])
"""
MEMORY_MIB = 4096
"""What a server may take where nothing else is said: several times what AppWorld takes with a world."""
# The signal is sent when the *thread* ends that started the child, so all are started by one that never does.
_starter = ThreadPoolExecutor(1, thread_name_prefix="world-servers")


class Server:
    """A running server process.

    Args:
        command: from a port to the command line.
        environment: added to this process's variables.
        folder: its working directory.
        memory_mib: MiB of memory it may take: a solver's code may run in it.

    Raises:
        EnvError: it does not start; the message has its last words.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        environment: Mapping[str, str],
        folder: str,
        memory_mib: int,
        wait_s: float,
    ) -> None:
        self._log = tempfile.NamedTemporaryFile(prefix="world-server-", suffix=".log")  # noqa: SIM115
        end = time.monotonic() + wait_s
        for _ in range(_TRIES):  # another process may take the port first
            self.port = _free_port()
            boot = [sys.executable, "-S", "-E", "-c", _BOOT, str(os.getpid()), str(memory_mib << 20)]
            line = [*boot, *command(self.port)]
            self.process = _starter.submit(self._spawn, line, {**os.environ, **environment}, folder).result()
            if self._wait(end):
                return
            self.kill()
        raise EnvError(
            f"the world's server did not start within {wait_s:g} s: {_shown(line[len(boot) :])}{self.last_words()}"
        )

    def _spawn(self, line: list[str], environment: dict[str, str], folder: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )

    def _wait(self, end: float) -> bool:
        """Whether it listens before it dies or time is up."""
        while self.alive and time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
                return self.alive
            time.sleep(0.05)
        return False

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.process.poll() is None

    @property
    def memory(self) -> int:
        """Bytes of resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def last_words(self) -> str:
        """Its exit status, where it has one, and the end of its log, as lines for a message."""
        lines = Path(self._log.name).read_text(errors="replace").splitlines()[-LOG_LINES:]
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.3)  # a connection breaks a moment before its process is seen to be dead
        status = self.process.poll()
        words = "" if status is None else f"; it ended with status {status}"
        return words + ("; its last lines:\n" + "\n".join("    " + line for line in lines) if lines else "")

    def kill(self) -> None:
        """End it; may be called again and from any thread."""
        self.process.kill()
        self.process.wait()


class Servers:
    """The slots of one kind of server in this process.

    Args:
        command, environment, folder, memory_mib: see ``Server``.
        slots: how many servers at most; None: as many as memory allows.

    Attributes:
        largest: bytes of the largest server measured so far.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        environment: Mapping[str, str] | None = None,
        folder: str = "/",
        slots: int | None = None,
        memory_mib: int = MEMORY_MIB,
    ) -> None:
        self._how = (command, environment or {}, folder, memory_mib)
        self._most = slots
        self.largest = 0
        self._idle: list[Server] = []
        self._out: set[Server] = set()
        self._starting = 0
        self._free = threading.Condition()

    @property
    def slots(self) -> int:
        """How many servers there may be; 1 until the first has been measured."""
        return self._most or 1

    def take(self, wait_s: float) -> Server:
        """A server for one episode: an idle one, a new one, or the next that is given back.

        Raises:
            EnvError: none within ``wait_s`` seconds, or it does not start.
        """
        end = time.monotonic() + wait_s
        with self._free:
            while not self._idle and len(self._out) + self._starting >= self.slots:
                if not self._free.wait(end - time.monotonic()):
                    raise EnvError(
                        f"all {self.slots} world servers were busy for {wait_s:g} s: lower rollout.max_concurrent to "
                        "that number, or raise env.options.slots"
                    )
            if self._idle:
                server = self._idle.pop()
                self._out.add(server)
                return server
            self._starting += 1
        try:
            server = Server(*self._how, wait_s=max(1.0, end - time.monotonic()))
        except BaseException:
            self._settle(None)
            raise
        self._settle(server)
        return server

    def _settle(self, server: Server | None) -> None:
        with self._free:
            self._starting -= 1
            if server is not None:
                self._out.add(server)
            self._free.notify_all()

    def measure(self, server: Server) -> None:
        """Call once a server has its world: decides the number of slots where it was not given."""
        memory = server.memory
        with self._free:
            self.largest = max(self.largest, memory)
            if self._most is None:
                self._most = slots_for(memory, available_memory())
                self._free.notify_all()

    def give_back(self, server: Server, healthy: bool) -> None:
        """The episode is over; one that is not healthy is killed."""
        if not healthy:
            server.kill()
        with self._free:
            self._out.discard(server)
            if healthy and server.alive:
                self._idle.append(server)
            self._free.notify_all()

    def close(self) -> None:
        """Kill all."""
        with self._free:
            for server in [*self._idle, *self._out]:
                server.kill()
            self._idle.clear()


def _shown(line: Sequence[str]) -> str:
    """A command line, without the text of a program in it."""
    return " ".join(word if "\n" not in word else "..." for word in line)


def slots_for(one: int, available: int) -> int:
    """How many servers fit: the one that was measured, and more of its size in a share of what is still available.

    Args:
        one: bytes of the first server.
        available: bytes available beside it.
    """
    return 1 + max(0, int(SHARE_OF_MEMORY * available / max(1, one)))


def available_memory() -> int:
    """Bytes that programs may still take on this host, or in this container where it has a limit."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    host = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        return min(host, max(0, int(text) - int(used.read_text())))
    return host


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


_shared: dict[tuple[object, ...], Servers] = {}
_lock = threading.Lock()


def shared(key: tuple[object, ...], make: Callable[[], Servers]) -> Servers:
    """The servers of this process for one configuration."""
    key = (os.getpid(), *key)
    with _lock:
        if key not in _shared:
            _shared[key] = make()
        return _shared[key]


@atexit.register
def _close_all() -> None:
    for (pid, *_), servers in list(_shared.items()):
        if pid == os.getpid():
            servers.close()
