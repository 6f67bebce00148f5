"""An errands world with the Python surface of an AppWorld world: execute, task_completed, evaluate, save and load.

Left out: the HTTP surface (server.py), and episodes (envs/appworld.py).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rlpost.envs.errands import registry
from rlpost.envs.errands.apps import APPS
from rlpost.envs.errands.datasets import task_of
from rlpost.envs.errands.evaluation import Verdict, difference, judge
from rlpost.envs.errands.registry import NoSuchApi, refusal
from rlpost.envs.errands.shell import FAILURE, Shell
from rlpost.envs.errands.state import ApiError, Person


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What a solver may know of its task."""

    id: str
    instruction: str
    supervisor: Person
    datetime: str


class ErrandsWorld:
    """One world with one task, for one episode.

    Args:
        task_id: see ``datasets.load_task_ids``.
        experiment_name: only noted.
        timeout_seconds: a block of code may take.
        max_interactions: blocks that may be executed.
        max_api_calls_per_interaction: of one block.
        unsafe: run code without isolation where the host gives none.

    Raises:
        UnknownTask: there is no such task.
    """

    def __init__(
        self,
        task_id: str,
        experiment_name: str = "default",
        *,
        timeout_seconds: float = 20.0,
        max_interactions: int = 1000,
        max_api_calls_per_interaction: int = 1000,
        unsafe: bool = False,
    ) -> None:
        known = task_of(task_id)
        seed, self.plan = known.build()
        self.experiment_name = experiment_name
        self.difficulty = known.difficulty
        self.state = seed.state
        self.task = TaskInfo(task_id, self.plan.instruction, self.state.supervisor, self.state.now)
        self._start = self.state.snapshot()
        self._saved: dict[str, tuple[bytes, Any, str | None]] = {}
        self._shell = Shell(self._ask, timeout_seconds, max_api_calls_per_interaction, unsafe)
        self._interactions, self._max_interactions = 0, max_interactions
        self._lock = threading.Lock()
        self._closed = False

    @property
    def shell_died(self) -> str:
        """Why the shell cannot be used any more, or nothing."""
        return self._shell.died

    def execute(self, code: str) -> str:
        """Run a block of Python in the world's shell; what it printed, or what went wrong.

        Raises:
            SandboxUnavailable, SandboxError: the sandbox cannot be used, or failed.
        """
        self._interactions += 1
        if self._interactions > self._max_interactions:
            return f"{FAILURE}Exception: Maximum number of executions ({self._max_interactions}) reached."
        return self._shell.execute(code)

    def task_completed(self) -> bool:
        """Whether ``complete_task`` was called."""
        return self.state.status is not None

    def evaluate(self) -> Verdict:
        """The tests, passed and failed, on the world as it is now."""
        with self._lock:
            changes = difference(self._start, self.state.snapshot())
        answer, completed = self.state.answer, self.task_completed()
        return judge(self.difficulty, self.plan.expected, changes, self.plan.answer, answer, completed)

    def complete(self) -> None:
        """Mark the task as complete, as ``apis.supervisor.complete_task()`` does."""
        with self._lock:
            registry.call(APPS, self.state, "supervisor", "complete_task", {})

    def save_state(self, state_id: str) -> None:
        """Keep the database and the answer under a name; the shell's variables are not kept."""
        with self._lock:
            self._saved[state_id] = (self.state.db.serialize(), self.state.answer, self.state.status)

    def load_state(self, state_id: str) -> None:
        """Go back to a kept state.

        Raises:
            KeyError: nothing is kept under that name.
        """
        with self._lock:
            data, self.state.answer, self.state.status = self._saved[state_id]
            self.state.db.deserialize(data)

    def close(self) -> None:
        """End the shell and drop the database; may be called again, and from another thread."""
        self._shell.close()
        with self._lock:
            if not self._closed:
                self._closed = True
                self.state.db.close()

    def __enter__(self) -> ErrandsWorld:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, kind: str, details: dict[str, Any]) -> dict[str, Any]:
        """One call of the solver's code. What it sends is of any shape: nothing of it is trusted."""
        try:
            with self._lock:
                return {"ok": self._call(kind, details)}
        except ApiError as error:
            return {"error": refusal(error)}
        except NoSuchApi as error:
            return {"error": str(error)}

    def _call(self, kind: str, details: dict[str, Any]) -> Any:
        arguments = details.get("arguments")
        arguments = arguments if isinstance(arguments, dict) else {}
        app, api = str(details.get("app")), str(details.get("api"))
        if kind == "app":
            if app not in APPS:
                raise NoSuchApi(f"No app named '{app}' found.")
            return None
        if kind == "http":
            app, api, in_path = registry.find(APPS, str(details.get("method")), str(details.get("url")))
            arguments = {**arguments, **in_path}
        return registry.call(APPS, self.state, app, api, arguments)
