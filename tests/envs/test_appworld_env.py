"""The AppWorld environment: prompt, code, reward, metrics, tasks, demonstrations, servers and their end."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rlpost.envs import appworld_servers
from rlpost.envs.appworld import AppWorld
from rlpost.envs.appworld_client import _GUARD as GUARD
from rlpost.envs.appworld_client import Deadlines, RemoteWorld, errands_servers
from rlpost.envs.appworld_prompt import gives_up, look_ups, opening
from rlpost.envs.appworld_reward import REWARDS, Baseline, measured_once
from rlpost.envs.appworld_servers import Servers, slots_for
from rlpost.envs.base import EnvError, Score
from rlpost.envs.errands.datasets import task_of
from rlpost.reward import sandbox

isolated = pytest.mark.skipif(sandbox.isolation() is None, reason=sandbox.isolation_problem())
ROOT = Path(__file__).parents[2]


def verdict(passes: str, failures: str) -> dict[str, list[dict[str, str]]]:
    """Tests by one-letter requirements."""
    return {"passes": [{"requirement": r} for r in passes], "failures": [{"requirement": r} for r in failures]}


@pytest.mark.parametrize(
    ("passes", "failures", "completed", "excluded", "of_all"),
    [
        ("dd", "axyz", False, 0.0, 0.0),
        ("dda", "xyz", True, 0.0, 0.0),
        ("ddaxyz", "", True, 1.0, 1.0),
        ("ddxyz", "a", False, 1.0, 5 / 6),
        ("ddxyz", "a", True, 3 / 4, 5 / 6),
        ("ddx", "ayz", False, 1 / 3, 3 / 6),
        ("daxyz", "d", True, 3 / 4, 5 / 6),
        ("dddx", "", True, 1.0, 1.0),
        ("", "", True, 0.0, 0.0),
    ],
    ids=[
        *("nothing done", "given up", "solved", "solved, not completed", "wrong answer", "unfinished", "damage"),
        *("one more of a kind", "no tests"),
    ],
)
def test_rewards_by_name(passes: str, failures: str, completed: bool, excluded: float, of_all: float) -> None:
    """Doing nothing passes the two tests d, a bare completion also a."""
    baseline = Baseline.of(verdict("dd", "axyz"), verdict("dda", "xyz"))
    for name, wanted in {"no_op_excluded": excluded, "paper_code": of_all}.items():
        assert REWARDS[name](verdict(passes, failures), baseline, completed) == pytest.approx(wanted, abs=1e-12)


@isolated
@pytest.mark.parametrize("reward", ["no_op_excluded", "paper_code"])
@pytest.mark.parametrize("http", [False, True])
def test_giving_up_at_once_is_worth_nothing(reward: str, http: bool) -> None:
    tasks = AppWorld.tasks("train", 0)
    chosen = [next(task for task in tasks if (task_of(task.id).build()[1].answer is None) == none) for none in (0, 1)]
    for task in chosen if not http else chosen[1:]:
        for code in ("print(1)", "apis.supervisor.complete_task()", "apis.supervisor.complete_task(status='fail')"):
            env = AppWorld(task, 0, reward=reward, partial_credit=True, http=http, slots=3)
            env.start()
            env.step(f"```python\n{code}\n```")
            assert env.score() == Score(0.0, {"tests": 0.0}, success=False), (task, code)
            env.close()
    with pytest.raises(
        EnvError, match=r"env\.options\.reward: there is no 'all'; there are no_op_excluded, paper_code"
    ):
        AppWorld(chosen[0], 0, reward="all")


def test_what_passes_for_nothing_is_measured_once_and_again_where_that_failed() -> None:
    asked: list[int] = []
    found = Baseline.of(verdict("d", ""), verdict("d", ""))

    def measure() -> Baseline:
        asked.append(1)
        if len(asked) == 1:
            raise EnvError("the server was lost")
        return found

    with pytest.raises(EnvError):
        measured_once("a task of this test", measure)
    assert all(measured_once("a task of this test", measure) is found for _ in range(3))
    assert len(asked) == 2


def test_what_is_counted_in_code() -> None:
    assert look_ups("print(apis.api_docs.show_api_doc(app_name='a', api_name='b'))\nx = apis.music.show_song()") == 1
    assert gives_up('apis.supervisor.complete_task(answer=None, status="fail")')
    assert not gives_up("apis.supervisor.complete_task(answer='fail')")


@isolated
def test_an_unfinished_episode_is_worth_nothing_unless_partial_credit_is_asked_for() -> None:
    task = next(task for task in AppWorld.tasks("train", 0) if len(task_of(task.id).build()[1].expected) > 2)
    rewards = {}
    for partial in (False, True):
        env = AppWorld(task, 0, partial_credit=partial)
        env.start()
        *first, last = task_of(task.id).build()[1].solution
        for block in [*first, last.replace("apis.supervisor.complete_task()", "")]:
            env.step(f"```python\n{block}\n```")
        rewards[partial] = env.score()
        assert env.metrics()["unfinished"] == 1.0
        env.close()
    assert (rewards[False].reward, rewards[True].reward) == (0.0, 1.0)
    assert not rewards[True].solved


@isolated
def test_giving_up_is_seen_and_look_ups_are_counted() -> None:
    env = AppWorld(AppWorld.tasks("train", 0)[0], 0)
    messages = env.start()
    assert [message["role"] for message in messages] == ["system", "user"]
    assert env.task.scenario == env.task.id.rpartition("_")[0]
    env.step("```python\nprint(apis.api_docs.show_app_descriptions())\n```")
    assert env.step('```python\napis.supervisor.complete_task(status="fail")\n```').done
    assert env.metrics()["gave_up"] == 1.0
    assert env.metrics()["api_doc_look_ups"] == 1.0
    assert not env.score().solved
    env.close()


def test_tasks_by_data_set_and_difficulty() -> None:
    everything, easy = AppWorld.tasks("train", 0), AppWorld.tasks("train", 0, difficulties=[1, 2])
    assert {task.difficulty for task in everything} == {1, 2, 3}
    assert {task.difficulty for task in easy} == {1, 2}
    held_out = AppWorld.tasks("eval", 0, difficulties=[1, 2])
    assert {task.difficulty for task in held_out} == {1, 2, 3}  # the filter is on training
    assert not {task.scenario for task in everything} & {task.scenario for task in held_out}
    with pytest.raises(EnvError, match=r"env.options.eval: there is no split 'tset'"):
        AppWorld.tasks("eval", 0, eval="tset")
    with pytest.raises(EnvError, match="no task of 'train' has a difficulty"):
        AppWorld.tasks("train", 0, difficulties=[7])


def test_tasks_of_the_real_appworld_come_from_its_data_folder(tmp_path: Path) -> None:
    (tmp_path / "data/datasets").mkdir(parents=True)
    (tmp_path / "data/datasets/train.txt").write_text("aaaaaaa_1\naaaaaaa_2\n")
    (tmp_path / "data/tasks/aaaaaaa_1/ground_truth").mkdir(parents=True)
    (tmp_path / "data/tasks/aaaaaaa_1/ground_truth/metadata.json").write_text(json.dumps({"difficulty": 2}))
    where = {"python": "python", "root": str(tmp_path)}
    tasks = AppWorld.tasks("train", 0, appworld=where)
    assert [(task.id, task.scenario, task.difficulty) for task in tasks] == [
        ("aaaaaaa_1", "aaaaaaa", 2),
        ("aaaaaaa_2", "aaaaaaa", 0),
    ]
    with pytest.raises(EnvError, match="rlpost doctor --appworld"):
        AppWorld.tasks("eval", 0, appworld=where)
    with pytest.raises(EnvError, match=r"env.options.appworld.root is missing"):
        AppWorld.tasks("train", 0, appworld={"python": "python"})


@isolated
def test_demonstrations_end_with_the_assistant_and_show_real_answers() -> None:
    (first, second) = AppWorld.demonstrations("train", 3, 2, difficulties=[1])
    assert [message["role"] for message in first.messages] == [
        "system",
        "user",
        *["assistant", "user"] * 3,
        "assistant",
    ]
    assert "complete_task" in first.messages[-1]["content"]
    assert first.messages[1] != second.messages[1]
    assert AppWorld.demonstrations("train", 3, 2, difficulties=[1])[0] == first
    with pytest.raises(EnvError, match="'train' and 'check', not 'eval'"):
        AppWorld.demonstrations("eval", 0, 1)


def test_slots_follow_from_the_memory_of_one_server() -> None:
    gib = 1 << 30
    assert slots_for(gib, 10 * gib) == 8  # the one that runs, and 7 in 0.7 of 10 GiB
    assert slots_for(gib, 0) == 1


def test_slots_are_one_until_the_first_is_measured() -> None:
    servers = errands_servers(None)
    world = RemoteWorld(servers, AppWorld.tasks("train", 0)[0].id, "x", Deadlines())
    assert servers.slots > 1
    assert servers.largest > 1 << 20
    world.close()
    servers.close()


def test_servers_are_bounded_in_memory_and_go_first_where_it_runs_out() -> None:
    servers = errands_servers(2, 1024)
    server = servers.take(30.0)
    pid = server.process.pid
    assert resource.prlimit(pid, resource.RLIMIT_DATA) == (1 << 30,) * 2
    assert resource.prlimit(pid, resource.RLIMIT_AS) == (5 << 30,) * 2
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"
    servers.give_back(server, healthy=True)


@pytest.mark.parametrize(("timeout_s", "real"), [(0.5, 1), (20.0, 20), (99.5, 100)])
def test_a_fraction_of_a_second_is_not_no_limit(
    timeout_s: float, real: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = {}

    def world(servers: object, task_id: str, experiment: str, deadlines: Deadlines, *rest: Any) -> None:
        seen.update(rest[1], execute=deadlines.execute)

    monkeypatch.setattr("rlpost.envs.appworld.RemoteWorld", world)
    task = AppWorld.tasks("train", 0)[0]
    where = {"python": sys.executable, "root": str(tmp_path)}
    AppWorld(task, 0, appworld=where, timeout_s=timeout_s, settings={"raise_on_unsafe_syntax": False})._new_world()
    assert seen == {"timeout_seconds": real, "raise_on_unsafe_syntax": False, "execute": 120.0}
    AppWorld(task, 0, http=True, timeout_s=timeout_s)._new_world()
    assert seen["timeout_seconds"] == timeout_s
    with pytest.raises(EnvError, match=r"env\.options\.timeout_s must be above 0"):
        AppWorld(task, 0, timeout_s=0)


STAND_IN = {
    "appworld/__init__.py": "",
    "appworld/serve/__init__.py": "",
    "appworld/serve/environment.py": "from appworld.environment import AppWorld\nworld, app = AppWorld(), None\n",
    "appworld/environment.py": """
class Result:
    error_in_exec = None
class AppWorld:
    def _shell_run_cell(self, code):
        result = Result()
        try: exec(code, {})
        except BaseException as error: result.error_in_exec = error
        return result
    def execute(self, code):
        error = self._shell_run_cell(code).error_in_exec
        try:
            if error is not None: raise error
        except Exception as error:
            return f"Execution failed. Traceback:\\n{type(error).__name__}: {error}"
        return "Execution successful."
""",
    "uvicorn.py": """
import importlib, json
from http.server import BaseHTTPRequestHandler, HTTPServer
def run(app, host, port, log_level):
    world = importlib.import_module(app.partition(":")[0]).world
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            output = world.execute(body["code"]) if self.path == "/execute" else {}
            self.send_response(200); self.end_headers()
            self.wfile.write(json.dumps({"output": output}).encode())
        def log_message(self, *_): pass
    HTTPServer((host, port), Handler).serve_forever()
""",
}


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit(3)", "GeneratorExit", "BaseException('x')"])
def test_what_a_solver_raises_does_not_end_the_real_appworlds_server(error: str, tmp_path: Path) -> None:
    """A package of AppWorld's shape, which catches exceptions alone, as AppWorld does."""
    for name, text in STAND_IN.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    make = {"PYTHONPATH": str(tmp_path)}
    servers = Servers(lambda port: [sys.executable, "-c", GUARD, str(port)], make, str(tmp_path), 1)
    world = RemoteWorld(servers, "aaaaaaa_1", "x", Deadlines())
    assert world.execute("x = 1") == "Execution successful."
    said = world.execute(f"raise {error}")
    assert said.startswith("Execution failed. Traceback:\nException: " + error.partition("(")[0])
    assert world.execute("x = 1") == "Execution successful."
    world.close()
    servers.close()


PROMPT = """SYSTEM:
You write code.
USER:
Do: water the plants.
ASSISTANT:
```python
print(1)
```
USER:
{{ main_user.first_name }} ({{ supervisor.email }}), {{ datetime }}: {{ input_str }}{% if instruction %}!{% endif %}
"""


def test_a_prompt_of_ones_own() -> None:
    about = {"instruction": "Pay {Ada}", "supervisor": {"first_name": "Bo", "email": "b@c.d"}, "datetime": "noon"}
    messages = opening(about, PROMPT)
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[2]["content"] == "```python\nprint(1)\n```"
    assert messages[3]["content"] == "Bo (b@c.d), noon: Pay {Ada}!"
    assert opening(about, "One message: {{ instruction }}") == [{"role": "user", "content": "One message: Pay {Ada}"}]
    for template, words in {
        "{{ nothing }}": "'nothing' is undefined",
        "x\n{% if %}": "line 2: Expected an expression",
        "USER:\nx\nASSISTANT:\ny": "must end with a message of the user's",
        "": "must end with a message of the user's",
        "{{ instruction.__class__.__mro__ }}": "unsafe",
    }.items():
        with pytest.raises(EnvError, match=r"env\.options\.prompt") as refused:
            opening(about, template)
        assert words in str(refused.value)


@isolated
def test_the_task_is_repeated_where_it_is_asked_for() -> None:
    task = AppWorld.tasks("train", 0)[0]
    for reminder in (False, True):
        env = AppWorld(task, 0, prompt="{{ instruction }}", reminder=reminder)
        (message,) = env.start()
        seen = env.step("```python\nprint(1)\n```")
        assert seen.text == "1"
        assert seen.reminder == (f"\n\nRemember, the task is: {message['content']}" if reminder else "")
        env.close()


def test_a_busy_slot_is_waited_for_and_then_said() -> None:
    servers = Servers(
        lambda port: [sys.executable, "-m", "rlpost.envs.errands.server", "--port", str(port)], {}, str(ROOT), 1
    )
    held = servers.take(30.0)
    with pytest.raises(EnvError, match=r"all 1 world servers were busy for 0.1 s"):
        servers.take(0.1)
    threading.Timer(0.2, servers.give_back, (held, True)).start()
    assert servers.take(30.0) is held
    servers.close()


def test_a_server_that_does_not_start_is_said_with_its_last_words() -> None:
    servers = Servers(lambda port: [sys.executable, "-c", "raise SystemExit('no licence')"], slots=1)
    with pytest.raises(EnvError, match=r"did not start(.|\n)*ended with status 1; its last lines:\n    no licence"):
        servers.take(20.0)
    assert servers.slots == 1


def test_a_server_that_hangs_is_given_up_and_replaced() -> None:
    servers = errands_servers(2)
    task_id = AppWorld.tasks("train", 0)[0].id
    world = RemoteWorld(servers, task_id, "x", Deadlines(execute=0.5))
    server = world._server
    assert server is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    with pytest.raises(EnvError, match=r"/execute: the world's server gave no answer within 0.5 s"):
        world.execute("print(1)")
    assert not server.alive
    with pytest.raises(EnvError, match="is closed"):
        world.execute("print(1)")
    world.close()
    fresh = RemoteWorld(servers, task_id, "x", Deadlines())
    assert fresh.task_completed() is False
    fresh.close()


PARENT = """
import sys, threading
from rlpost.envs.appworld_client import _GUARD as GUARD
from rlpost.envs.appworld_client import Deadlines, RemoteWorld, errands_servers
def play():
    world = RemoteWorld(errands_servers(1), sys.argv[1], "x", Deadlines())
    print(world._server.process.pid, flush=True)
thread = threading.Thread(target=play); thread.start(); thread.join()  # the thread that asked is gone
import time; time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_server_outlives_its_parent(how: signal.Signals) -> None:
    command = [sys.executable, "-c", PARENT, AppWorld.tasks("train", 0)[0].id]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.3)
        os.kill(pid, 0)  # alive although the thread that started it has ended
        parent.send_signal(how)
    end = time.monotonic() + 20
    while _runs(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_available_memory_is_below_what_the_host_has() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < appworld_servers.available_memory() <= total
