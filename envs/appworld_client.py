"""One world, near or far: our own in this process, or a server of AppWorld's HTTP interface in a child process.

Both have the same few calls. Left out: episodes (appworld.py), and how servers live (appworld_servers.py).
"""

from __future__ import annotations

import http.client
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rlpost.envs.appworld_reward import Baseline
from rlpost.envs.appworld_servers import MEMORY_MIB, Server, Servers, shared
from rlpost.envs.base import EnvError
from rlpost.envs.errands.server import describe
from rlpost.envs.errands.world import ErrandsWorld

INSTALLED_IN = str(Path(__file__).absolute().parents[2])
_GUARD = Path(__file__).with_name("appworld_guard.py").read_text()
_INITIALIZE_TRIES = 2


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds each request to a server may take; the first ``initialize`` of AppWorld imports all its apps."""

    initialize: float = 180.0
    execute: float = 120.0
    evaluate: float = 60.0
    close: float = 20.0


class World(Protocol):
    """What an episode asks of its world. Every method but ``close`` raises EnvError where the world is lost."""

    def describe(self) -> Mapping[str, Any]:
        """``instruction``, ``supervisor`` and ``datetime``."""
        ...

    def execute(self, code: str) -> str:
        """Run a block of Python; what it printed, or what went wrong."""
        ...

    def task_completed(self) -> bool:
        """Whether the solver has said that it is done."""
        ...

    def evaluate(self) -> Mapping[str, Any]:
        """``success``, ``num_tests``, ``passes`` and ``failures``."""
        ...

    def baseline(self) -> Baseline:
        """The tests that doing nothing passes on this task, and a bare ``complete_task()``. The world's own state may
        be lost by it: ask last."""
        ...

    def ended(self) -> str:
        """Why nothing more can be executed, or nothing."""
        ...

    def close(self) -> None:
        """Let go of it; from any thread."""
        ...


class LocalWorld:
    """Our own world, in this process; its solver's code runs in the sandbox."""

    def __init__(self, task_id: str, experiment: str, timeout_s: float, unsafe: bool) -> None:
        self._world = ErrandsWorld(task_id, experiment, timeout_seconds=timeout_s, unsafe=unsafe)

    def describe(self) -> Mapping[str, Any]:
        """See World."""
        return describe(self._world.task.id)

    def execute(self, code: str) -> str:
        """See World."""
        return self._world.execute(code)

    def task_completed(self) -> bool:
        """See World."""
        return self._world.task_completed()

    def evaluate(self) -> Mapping[str, Any]:
        """See World."""
        return self._world.evaluate().to_dict()

    def baseline(self) -> Baseline:
        """See World."""
        with ErrandsWorld(self._world.task.id) as fresh:
            idle = fresh.evaluate().to_dict()
            fresh.complete()
            return Baseline.of(idle, fresh.evaluate().to_dict())

    def ended(self) -> str:
        """See World."""
        return self._world.shell_died

    def close(self) -> None:
        """See World."""
        self._world.close()


class RemoteWorld:
    """A world in a server of its own.

    Args:
        servers: the slots.
        task_id: its task.
        experiment: unique for this episode; AppWorld writes below a folder of that name.
        deadlines: seconds a request may take.
        outputs: the folder that ``experiment`` is written in, removed at the end; None: nothing is.
        settings: further fields of ``initialize``.

    Raises:
        EnvError: no server starts, or it cannot set up the task, after one more try with a fresh server.
    """

    def __init__(
        self,
        servers: Servers,
        task_id: str,
        experiment: str,
        deadlines: Deadlines,
        outputs: Path | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._servers, self._task_id, self._deadlines = servers, task_id, deadlines
        self._outputs = None if outputs is None else outputs / experiment
        self._server: Server | None = None
        self._busy = False
        self._body = {"experiment_name": experiment, **(settings or {})}
        for attempt in range(_INITIALIZE_TRIES):
            self._server = servers.take(deadlines.initialize)
            try:
                self._about: Mapping[str, Any] = self._ask("initialize", deadlines.initialize, **self._body)
                break
            except EnvError:
                self.close()
                if attempt + 1 == _INITIALIZE_TRIES:
                    raise
        servers.measure(self._held())

    def describe(self) -> Mapping[str, Any]:
        """See World."""
        return self._about

    def execute(self, code: str) -> str:
        """See World."""
        return str(self._ask("execute", self._deadlines.execute, code=code))

    def task_completed(self) -> bool:
        """See World."""
        return bool(self._ask("task_completed", self._deadlines.evaluate))

    def evaluate(self) -> Mapping[str, Any]:
        """See World."""
        verdict: Mapping[str, Any] = self._ask("evaluate", self._deadlines.evaluate, suppress_errors=True, report=False)
        return verdict

    def baseline(self) -> Baseline:
        """See World."""
        self._ask("initialize", self._deadlines.initialize, **self._body)
        idle = self.evaluate()
        self.execute("apis.supervisor.complete_task()")
        return Baseline.of(idle, self.evaluate())

    def ended(self) -> str:
        """See World: a server that is lost raises instead."""
        return ""

    def close(self) -> None:
        """Give the server back; where it fails, or is in the middle of a request, it is killed."""
        server, self._server = self._server, None
        if server is not None:
            self._servers.give_back(server, healthy=not self._busy and self._leave(server))
        if self._outputs is not None:
            shutil.rmtree(self._outputs, ignore_errors=True)

    def _leave(self, server: Server) -> bool:
        try:
            _post(server, "close", {"task_id": self._task_id}, self._deadlines.close)
        except EnvError:
            return False
        return True

    def _held(self) -> Server:
        if self._server is None:
            raise EnvError(f"the world of task '{self._task_id}' is closed")
        return self._server

    def _ask(self, path: str, deadline_s: float, **body: Any) -> Any:
        server = self._held()
        self._busy = True
        try:
            return _post(server, path, {"task_id": self._task_id, **body}, deadline_s)
        except EnvError:
            if self._server is server:
                self._server = None
                self._servers.give_back(server, healthy=False)
            raise
        finally:
            self._busy = False


def _post(server: Server, path: str, body: Mapping[str, Any], deadline_s: float) -> Any:
    """One request.

    Raises:
        EnvError: no answer in time, or not the answer of a healthy server.
    """
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=deadline_s)
    try:
        data = json.dumps(body).encode()
        connection.request("POST", f"/{path}", data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
        if response.status == 200:
            return json.loads(text)["output"]
        problem = f"answered {response.status}: {text[:500]}"
    except TimeoutError:
        problem = f"gave no answer within {deadline_s:g} s"
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        problem = f"was lost ({type(error).__name__}: {error})"
    finally:
        connection.close()
    raise EnvError(f"/{path}: the world's server {problem}{server.last_words()}")


def appworld_servers(python: str, root: str, slots: int | None, memory_mib: int = MEMORY_MIB) -> Servers:
    """Slots of the real AppWorld, run by ``python`` with its data below ``root``."""

    def command(port: int) -> list[str]:
        return [python, "-c", _GUARD, str(port)]

    make = {"APPWORLD_ROOT": root, "PYTHONPATH": "", "LD_PRELOAD": "", "MALLOC_ARENA_MAX": "2"}
    return shared((python, root, slots, memory_mib), lambda: Servers(command, make, root, slots, memory_mib))


def errands_servers(slots: int | None, memory_mib: int = MEMORY_MIB) -> Servers:
    """Slots of our own world behind HTTP."""

    def command(port: int) -> list[str]:
        return [sys.executable, "-P", "-m", "rlpost.envs.errands.server", "--port", str(port)]

    make = {"PYTHONPATH": INSTALLED_IN}
    return shared(("errands", slots, memory_mib), lambda: Servers(command, make, INSTALLED_IN, slots, memory_mib))
