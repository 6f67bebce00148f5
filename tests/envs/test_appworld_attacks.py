"""Episodes of a solver that misbehaves: each ends scored, with a counted reason, and the next one is clean."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from rlpost.envs.appworld import AppWorld
from rlpost.envs.base import Observation, Score
from rlpost.reward import sandbox

pytestmark = pytest.mark.skipif(sandbox.isolation() is None, reason=sandbox.isolation_problem())
TASK = AppWorld.tasks("train", 0)[0]
MARK = Path(__file__).with_name("attack-was-here")


def turn(code: str) -> str:
    return f"I attack.\n```python\n{code}\n```"


def attack(*turns: str) -> tuple[list[Observation], Score, dict[str, float]]:
    """Play turns, then the task's own solution where the episode still goes on."""
    env = AppWorld(TASK, 0, timeout_s=2.0)
    try:
        env.start()
        seen = [env.step(text) for text in turns]
        return seen, env.score(), dict(env.metrics())
    finally:
        env.close()


def solve() -> Score:
    """A clean episode, the next on the slot: what it finds is what any first episode finds."""
    from rlpost.envs.errands.datasets import task_of

    env = AppWorld(TASK, 0)
    env.start()
    for block in task_of(TASK.id).build()[1].solution:
        observation = env.step(turn(block))
        assert not observation.text.startswith("Execution failed."), observation.text
    assert observation.done
    score = env.score()
    env.close()
    return score


@pytest.fixture(autouse=True)
def next_episode_is_clean() -> object:
    yield
    assert solve() == Score(1.0, {"tests": 1.0}, success=True)
    assert not MARK.exists()


FAILS = {
    "prints 10 MB": ("print('x' * 10_000_000)", "Execution printed too much."),
    "loops forever": ("while True: pass", "Execution timed out after 2 seconds."),
    "opens a socket": ("import socket as s\ns.socket()", "PermissionError"),
    "writes outside its folder": (f"from pathlib import Path as P\nP('{MARK}').write_text('x')", "Error"),
    "writes where the host keeps things": ("import os as o\no.mkdir('/etc/x')", "Error"),
    "forks": (
        "import os as o\nfor _ in range(50):\n    if o.fork() == 0:\n        while True: pass",
        "Execution failed.",
    ),
    "takes 10 GB": ("x = bytearray(10**10)", "MemoryError"),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "raises what is no exception": ("class E(BaseException): pass\nraise E('mine')", "E: mine"),
    "imports the evaluator": ("from rlpost.envs.errands import evaluation", "ModuleNotFoundError"),
}


@pytest.mark.parametrize("name", list(FAILS))
def test_an_attack_fails_and_counts_as_an_execution_error(name: str) -> None:
    code, words = FAILS[name]
    (seen,), score, metrics = attack(turn(code))
    assert words in seen.text
    assert len(seen.text) < 3_000
    assert score == Score(0.0, {"tests": 0.0}, success=False)
    assert metrics["unfinished"] == 1.0
    assert metrics["execution_errors_a_turn"] == 1.0


@pytest.mark.parametrize(
    "code",
    ["import os as o, signal as s\no.kill(o.getppid(), s.SIGKILL)\no._exit(9)", "import ctypes as c\nc.string_at(0)"],
    ids=["kills its parent", "crashes its shell"],
)
def test_a_lost_shell_ends_the_episode(code: str) -> None:
    pid = os.getppid()
    (seen,), score, metrics = attack(turn(code))
    assert seen.done
    assert (score.solved, metrics["shell_lost"]) == (False, 1.0)
    os.kill(pid, 0)  # raises where our own parent is gone


def test_patching_everything_within_reach_changes_no_verdict() -> None:
    code = (
        "import builtins, json as j, sys\n"
        "class Yes:\n    def __eq__(self, other): return True\n    def __call__(self, *a, **k): return Yes()\n"
        "for name in list(globals()):\n"
        "    if name not in ('Yes', 'apis', 'name'): globals()[name] = Yes()\n"
        "builtins.all = builtins.any = lambda *_: True\n"
    )
    _, score, _ = attack(turn(code), turn("apis.supervisor.complete_task()"))
    assert (score.reward, score.solved) == (0.0, False)


def test_asking_the_world_for_more_than_it_offers_is_refused() -> None:
    lies = (
        "for kind in ('evaluate', 'sql', 'api', 'http', 'app'):\n"
        "    try: print(call(kind, app=['x'], api=None, arguments='DROP', method=3, url={'a': 1}))\n"
        "    except Exception as e: print(type(e).__name__)"
    )
    (seen,), score, _ = attack(turn(lies))
    assert "error" in seen.text
    assert not score.solved


def test_completing_twice_counts_once() -> None:
    twice = "apis.supervisor.complete_task(status='fail')\napis.supervisor.complete_task(status='success', answer=3)"
    (seen,), score, metrics = attack(turn(twice))
    assert seen.done
    assert 'Response status code is 409:\n{"message":"The task has already been marked as complete."}' in seen.text
    assert (score.solved, metrics["gave_up"], metrics["execution_errors_a_turn"]) == (False, 1.0, 1.0)


def test_no_code_is_told_and_counted() -> None:
    seen, score, metrics = attack("I think about it.", "```python\n\n```")
    assert [observation.text for observation in seen] == ["No code available to execute."] * 2
    assert (metrics["no_code_a_turn"], score.reward) == (1.0, 0.0)


def test_several_blocks_run_as_one() -> None:
    seen, _, metrics = attack("```python\nx = 2\n```\nand then\n```py\nprint(x + 1)\n```\n```\nprint('end')")
    assert seen[0].text == "3\nend"
    assert metrics["several_blocks_a_turn"] == 1.0


@pytest.mark.parametrize(
    "text", ["\ufffd\ufffd```python\nprint('\ufffd')\n```", "```python\nprint('\ud800')\n```", "\x00"]
)
def test_invalid_unicode_is_survived(text: str) -> None:
    (seen,), score, _ = attack(text)
    assert seen.text.encode()
    assert score.reward == 0.0


def test_a_lost_server_costs_its_own_episode_only() -> None:
    env, other = (AppWorld(TASK, 0, http=True, slots=3) for _ in range(2))
    env.start()
    other.start()
    server = env._world._server  # type: ignore[union-attr]
    server.process.kill()
    with pytest.raises(Exception, match=r"/execute: the world's server (was lost|answered)(.|\n)*ended with status -9"):
        env.step(turn("print(1)"))
    env.close()
    assert other.step(turn("print(1)")).text == "1"
    other.close()
    fresh = AppWorld(TASK, 0, http=True, slots=3)
    fresh.start()
    assert fresh.step(turn("print(2)")).text == "2"
    fresh.close()


def test_ports_are_bound_to_this_host_only() -> None:
    env = AppWorld(TASK, 0, http=True, slots=3)
    env.start()
    port = env._world._server.port  # type: ignore[union-attr]
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert f"0100007F:{port:04X}" in listening
    assert f"00000000:{port:04X}" not in listening
    with socket.create_connection(("127.0.0.1", port)):
        pass
    env.close()
