"""The AppWorld environment: prompt, code, reward, metrics, tasks, demonstrations, servers and their end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rlpost.envs import appworld_servers
from rlpost.envs.appworld import AppWorld
from rlpost.envs.appworld_client import Deadlines, RemoteWorld, errands_servers
from rlpost.envs.appworld_prompt import code_blocks, gives_up, look_ups
from rlpost.envs.appworld_reward import share_of_tests
from rlpost.envs.appworld_servers import Servers, slots_for
from rlpost.envs.base import EnvError
from rlpost.reward import sandbox

isolated = pytest.mark.skipif(sandbox.isolation() is None, reason=sandbox.isolation_problem())
ROOT = Path(__file__).parents[2]


def verdict(no_op_fail: tuple[int, int], no_op_pass: tuple[int, int]) -> dict[str, list[dict[str, str]]]:
    """Tests (passed, failed) of each label."""
    labels = {"no_op_fail": no_op_fail, "no_op_pass": no_op_pass}
    return {
        kind: [{"requirement": "r", "label": label} for label, counts in labels.items() for _ in range(counts[place])]
        for place, kind in enumerate(("passes", "failures"))
    }


@pytest.mark.parametrize(
    ("no_op_fail", "no_op_pass", "share"),
    [
        ((0, 3), (2, 0), 0.0),
        ((3, 0), (2, 0), 1.0),
        ((1, 2), (2, 0), 1 / 3),
        ((3, 0), (1, 1), 3 / 4),
        ((0, 0), (2, 0), 0.0),
    ],
    ids=["nothing done", "solved", "a third", "solved with damage", "no tests"],
)
def test_reward_counts_the_tests_that_doing_nothing_fails(
    no_op_fail: tuple[int, int], no_op_pass: tuple[int, int], share: float
) -> None:
    assert share_of_tests(verdict(no_op_fail, no_op_pass)) == pytest.approx(share, abs=1e-12)  # type: ignore[arg-type]


def test_tests_without_labels_all_count() -> None:
    tests = {"passes": [{"requirement": "r"}] * 3, "failures": [{"requirement": "s"}]}
    assert share_of_tests(tests) == 0.75


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("a\n```python\nx = 1\n```", ["x = 1"]),
        ("```py\nx\n```\n```\ny\n```", ["x", "y"]),
        ("```python\nx = '''a'''\ny", ["x = '''a'''\ny"]),
        ("no code", []),
        ("`x`", []),
    ],
)
def test_code_blocks(text: str, blocks: list[str]) -> None:
    assert code_blocks(text) == blocks


def test_what_is_counted_in_code() -> None:
    assert look_ups("print(apis.api_docs.show_api_doc(app_name='a', api_name='b'))\nx = apis.music.show_song()") == 1
    assert gives_up('apis.supervisor.complete_task(answer=None, status="fail")')
    assert not gives_up("apis.supervisor.complete_task(answer='fail')")


@isolated
def test_an_unfinished_episode_is_worth_nothing_unless_partial_credit_is_asked_for() -> None:
    from rlpost.envs.errands.datasets import task_of

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
