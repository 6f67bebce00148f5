"""AppWorld-style episodes: a solver writes Python, a world runs it, and tests of the world's state judge the end.

The same environment drives our own world (``errands``, the default: nothing to install) and the real AppWorld, which
lives in a Python environment of its own and is reached over HTTP, one server process a slot. The reward is a share of
the task's tests; neither doing nothing nor giving up at once is paid (appworld_reward.py). Left out: AppWorld itself,
its tasks and its data, which nobody may redistribute.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rlpost.envs.appworld_client import Deadlines, LocalWorld, RemoteWorld, World, appworld_servers, errands_servers
from rlpost.envs.appworld_demos import demonstrate
from rlpost.envs.appworld_prompt import REMINDER, code_blocks, gives_up, joined, look_ups, opening
from rlpost.envs.appworld_reward import REWARDS, measured_once
from rlpost.envs.appworld_servers import MEMORY_MIB
from rlpost.envs.base import Demonstration, Env, EnvError, Message, Observation, Score, Task
from rlpost.envs.errands.datasets import UnknownTask, load_task_ids, task_of

FAILED = "Execution failed."
_episodes = itertools.count()


class AppWorld(Env):
    """One episode.

    Args:
        task: one of ``tasks``.
        seed: not used: the worlds are the tasks' own.
        appworld: the real AppWorld: ``{python: path of the interpreter it is installed for, root: its data folder}``.
            Absent: our own world.
        http: put our own world behind HTTP too, as the real one is.
        train, eval: the data sets that training and evaluation tasks come from.
        difficulties: only tasks of these difficulties are trained on.
        reward: ``no_op_excluded``: the share of the tests that neither doing nothing nor a bare ``complete_task()``
            passes; ``paper_code``: of all tests, and of unfinished episodes too, as in LOOP's released code.
        partial_credit: score the tests of an episode that never completed its task; else it is worth 0, as in LOOP's
            paper.
        experiment: name of the run; each episode has one of its own below it.
        slots: servers at most; absent: as many as memory holds.
        memory_mib: MiB that a server may take.
        timeout_s: seconds a block of code may take; the real AppWorld takes whole ones and gets the next.
        deadlines: seconds that requests to a server may take, by name (see ``Deadlines``); ``execute`` at least 20 more
            than ``timeout_s``, unless it is given.
        settings: further fields of AppWorld's ``initialize``, e.g. ``{raise_on_unsafe_syntax: false}``.
        prompt: a file with a prompt of one's own, a Jinja template (see appworld_prompt.py), or its text.
        reminder: repeat the task after every observation.
        unsafe: run code without isolation where the host gives none.

    Raises:
        EnvError: the world cannot be set up, or was lost in the middle of the episode.
    """

    text_options: ClassVar[frozenset[str]] = frozenset({"prompt"})

    def __init__(
        self,
        task: Task,
        seed: int,
        appworld: Mapping[str, str] | None = None,
        http: bool = False,
        train: str = "train",
        eval: str = "dev",
        difficulties: Sequence[int] | None = None,
        reward: str = "no_op_excluded",
        partial_credit: bool = False,
        experiment: str = "rlpost",
        slots: int | None = None,
        memory_mib: int = MEMORY_MIB,
        timeout_s: float = 20.0,
        deadlines: Mapping[str, float] | None = None,
        settings: Mapping[str, Any] | None = None,
        prompt: str | None = None,
        reminder: bool = False,
        unsafe: bool = False,
    ) -> None:
        super().__init__(task, seed)
        if not timeout_s > 0:
            raise EnvError(f"env.options.timeout_s must be above 0, not {timeout_s}")
        self._where = (appworld, http, slots, memory_mib)
        self._settings = dict(settings or {})
        self._prompt = prompt
        self._reminder = reminder
        self._experiment = f"{experiment}/{os.getpid()}-{next(_episodes)}-{task.id}"
        if reward not in REWARDS:
            raise EnvError(f"env.options.reward: there is no '{reward}'; there are {', '.join(REWARDS)}")
        self._reward = REWARDS[reward]
        self._partial_credit = partial_credit or reward == "paper_code"
        self._timeout_s = timeout_s
        self._deadlines = Deadlines(**{"execute": max(Deadlines().execute, timeout_s + 20.0), **(deadlines or {})})
        self._unsafe = unsafe
        self._world: World | None = None
        self._counts = dict.fromkeys(("turns", "errors", "look_ups", "no_code", "several_blocks"), 0)
        self._gave_up = self._completed = False
        self._ended = self._task_words = ""

    @classmethod
    def tasks(
        cls,
        split: str,
        seed: int,
        appworld: Mapping[str, str] | None = None,
        train: str = "train",
        eval: str = "dev",
        difficulties: Sequence[int] | None = None,
        **options: Any,
    ) -> Sequence[Task]:
        """All tasks of a data set; of the training split, those of ``difficulties``.

        Raises:
            EnvError: no such data set, no data, or no task of these difficulties.
        """
        name = train if split == "train" else eval
        try:
            found = _own_tasks(name) if appworld is None else _appworld_tasks(Path(_setting(appworld, "root")), name)
        except UnknownTask as error:
            raise EnvError(f"env.options.{split}: {error}") from None
        if split == "train" and difficulties is not None:
            found = [task for task in found if task.difficulty in difficulties]
            if not found:
                raise EnvError(f"no task of '{name}' has a difficulty of env.options.difficulties {list(difficulties)}")
        return found

    @classmethod
    def demonstrations(
        cls, split: str, seed: int, count: int, appworld: Mapping[str, str] | None = None, **options: Any
    ) -> Sequence[Demonstration]:
        """Reference solutions of our own world's tasks, played turn by turn; see ``appworld_demos.demonstrate``."""
        if appworld is not None:
            raise EnvError("the real AppWorld gives no demonstrations; name a file in warm_start.data")
        allowed = {"train", "difficulties", "unsafe", "prompt", "reminder"} & options.keys()
        return demonstrate(split, seed, count, **{name: options[name] for name in allowed})

    def start(self) -> Sequence[Message]:
        """Set the world up; the prompt."""
        self._world = self._new_world()
        about = self._world.describe()
        self._task_words = REMINDER.format(about["instruction"]) if self._reminder else ""
        return opening(about, self._prompt)

    def _new_world(self) -> World:
        appworld, http, slots, memory_mib = self._where
        if appworld is None and not http:
            return LocalWorld(self.task.id, self._experiment, self._timeout_s, self._unsafe)
        if appworld is None:
            servers, outputs = errands_servers(slots, memory_mib), None
            settings = {"timeout_seconds": self._timeout_s, "unsafe": self._unsafe, **self._settings}
        else:
            root = _setting(appworld, "root")
            servers = appworld_servers(_setting(appworld, "python"), root, slots, memory_mib)
            outputs = Path(root) / "experiments" / "outputs"
            settings = {"timeout_seconds": math.ceil(self._timeout_s), **self._settings}  # 0 would be none at all
        return RemoteWorld(servers, self.task.id, self._experiment, self._deadlines, outputs, settings)

    def step(self, text: str) -> Observation:
        """Run the turn's code (all its blocks as one); what came of it."""
        world = self._here()
        blocks = code_blocks(text)
        code = joined(blocks)
        counts = self._counts
        counts["turns"] += 1
        counts["no_code"] += not code.strip()
        counts["several_blocks"] += len(blocks) > 1
        counts["look_ups"] += look_ups(code)
        output = world.execute(code)
        counts["errors"] += output.startswith(FAILED)
        self._completed = world.task_completed()
        self._gave_up = self._completed and gives_up(code)
        self._ended = world.ended()
        done = self._completed or bool(self._ended)
        return Observation(output.rstrip("\n"), done, self._task_words)

    def score(self) -> Score:
        """Share of the tests, and success: completed, and all tests passed."""
        if not (self._completed or self._partial_credit):
            return Score(0.0, {"tests": 0.0}, success=False)
        world = self._here()
        verdict = world.evaluate()
        appworld = self._where[0]
        baseline = measured_once((appworld and appworld.get("root"), self.task.id), world.baseline)
        share = self._reward(verdict, baseline, self._completed)
        return Score(share, {"tests": share}, success=self._completed and bool(verdict["success"]))

    def metrics(self) -> Mapping[str, float]:
        """Failed executions and turns without code, as shares of the turns; look-ups in the API docs; 1 where the
        solver gave up, never completed, or lost its shell; turns of several code blocks."""
        turns = max(1, self._counts["turns"])
        return {
            "execution_errors_a_turn": self._counts["errors"] / turns,
            "no_code_a_turn": self._counts["no_code"] / turns,
            "several_blocks_a_turn": self._counts["several_blocks"] / turns,
            "api_doc_look_ups": float(self._counts["look_ups"]),
            "gave_up": float(self._gave_up),
            "unfinished": float(not self._completed),
            "shell_lost": float(bool(self._ended)),
        }

    def close(self) -> None:
        """Let go of the world."""
        if self._world is not None:
            self._world.close()

    def _here(self) -> World:
        if self._world is None:
            raise EnvError("the episode was not started")
        return self._world


def _own_tasks(name: str) -> list[Task]:
    known = [task_of(task_id) for task_id in load_task_ids(name)]
    return [Task(str(task), {"task_id": str(task)}, task.scenario, task.difficulty, "errands") for task in known]


def _appworld_tasks(root: Path, name: str) -> list[Task]:
    """Ids from the data set's file; difficulties from the tasks' metadata, where it is there."""
    listed = root / "data" / "datasets" / f"{name}.txt"
    if not listed.is_file():
        raise EnvError(f"AppWorld has no data set {listed}; `rlpost doctor --appworld PYTHON` says what is missing")
    tasks = []
    for task_id in listed.read_text().split():
        metadata = root / "data" / "tasks" / task_id / "ground_truth" / "metadata.json"
        difficulty = json.loads(metadata.read_text()).get("difficulty", 0) if metadata.is_file() else 0
        tasks.append(Task(task_id, {"task_id": task_id}, task_id.rpartition("_")[0], difficulty, "appworld"))
    return tasks


def _setting(appworld: Mapping[str, str], name: str) -> str:
    if not appworld.get(name):
        raise EnvError(f"env.options.appworld.{name} is missing: AppWorld's own Python, and the folder of its data")
    return appworld[name]
