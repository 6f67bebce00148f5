"""An errands world behind HTTP, as ``appworld serve environment`` puts one.

    python -m rlpost.envs.errands.server --port P

POST JSON to /initialize, /execute, /task_completed, /evaluate, /save_state, /load_state, /save_logs, /close and
/close_all, which answer ``{"output": ...}``; GET /, /tasks/ID and /api_docs. One world at a time, on 127.0.0.1. Left
out: logs on disk (save_logs answers and does nothing).
"""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rlpost.envs.errands.apps import APPS
from rlpost.envs.errands.datasets import UnknownTask, task_of
from rlpost.envs.errands.world import ErrandsWorld

LONGEST = 16 << 20
CONSTRUCTOR = ("experiment_name", "timeout_seconds", "max_interactions", "max_api_calls_per_interaction", "unsafe")


class Service:
    """The one world of this server, and what can be asked of it."""

    def __init__(self) -> None:
        self._world: ErrandsWorld | None = None
        self._one_at_a_time = threading.Lock()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Answer a request.

        Raises:
            KeyError: no such path; ValueError: no such task, or another than the active one.
        """
        with self._one_at_a_time:
            if path == "initialize":
                return self._initialize(body)
            actions: dict[str, Callable[[ErrandsWorld], Any]] = {
                "execute": lambda world: world.execute(str(body.get("code", ""))),
                "task_completed": lambda world: world.task_completed(),
                "evaluate": lambda world: world.evaluate().to_dict(),
                "save_state": lambda world: world.save_state(str(body.get("state_id"))),
                "load_state": lambda world: world.load_state(str(body.get("state_id"))),
                "save_logs": lambda world: None,
                "close": lambda world: world.close(),
                "close_all": lambda world: world.close(),
            }
            return actions[path](self._active(body))

    def _initialize(self, body: dict[str, Any]) -> dict[str, Any]:
        if self._world is not None:
            self._world.close()
        given = {name: body[name] for name in CONSTRUCTOR if body.get(name) is not None}
        self._world = ErrandsWorld(str(body.get("task_id")), **given)
        return describe(str(body.get("task_id")))

    def _active(self, body: dict[str, Any]) -> ErrandsWorld:
        task_id = body.get("task_id")
        if self._world is None:
            raise ValueError("AppWorld has not been initialized.")
        if self._world.task.id != task_id:
            active = self._world.task.id
            raise ValueError(f"The active task world is {active}. But you have requested to operate on {task_id}")
        return self._world


def describe(task_id: str) -> dict[str, Any]:
    """What a solver is told of a task."""
    seed, plan = task_of(task_id).build()
    me = seed.state.supervisor
    supervisor = {
        "first_name": me.first_name,
        "last_name": me.last_name,
        "email": me.email,
        "phone_number": me.phone_number,
    }
    return {
        "task_id": task_id,
        "instruction": plan.instruction,
        "supervisor": supervisor,
        "datetime": seed.state.now,
    }


def get(path: str) -> Any:
    """Answer a GET. Raises KeyError: no such path; UnknownTask: no such task."""
    if path == "":
        return {"message": "Welcome to the errands server."}
    if path == "api_docs":
        return {app.name: {api.name: api.doc() for api in app.apis.values()} for app in APPS.values()}
    kind, _, task_id = path.partition("/")
    if kind != "tasks":
        raise KeyError(path)
    return {"output": describe(task_id)}


class Handler(BaseHTTPRequestHandler):
    """JSON in, JSON out; a fault is a status and ``{"detail": words}``."""

    protocol_version = "HTTP/1.1"
    service: Service

    def do_GET(self) -> None:
        """See ``get``."""
        self._answer(lambda: get(self.path.strip("/")))

    def do_POST(self) -> None:
        """See ``Service.post``."""
        body = self.rfile.read(min(LONGEST, int(self.headers.get("Content-Length", 0))))
        self._answer(lambda: {"output": self.service.post(self.path.strip("/"), json.loads(body or b"{}"))})

    def _answer(self, work: Callable[[], Any]) -> None:
        try:
            status, reply = 200, work()
        except UnknownTask as error:
            status, reply = 404, {"detail": str(error)}
        except KeyError as error:
            status, reply = 404, {"detail": f"nothing is at {error}"}
        except Exception as error:
            status, reply = 500, {"detail": f"{type(error).__name__}: {error}"}
        data = json.dumps(reply).encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    handler = type("OneWorld", (Handler,), {"service": Service()})
    ThreadingHTTPServer(("127.0.0.1", port), handler).serve_forever()


if __name__ == "__main__":
    main()
