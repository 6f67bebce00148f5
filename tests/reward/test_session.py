"""Sessions: state, callbacks, timeouts that leave the shell alive, deaths, and shells that lie to their parent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from rlpost.reward import sandbox
from rlpost.reward.sandbox import CallError, Limits, Reason, Session

pytestmark = pytest.mark.skipif(sandbox.isolation() is None, reason=sandbox.isolation_problem())
LIMITS = Limits(wall_s=20, output_bytes=2000, memory_mib=256)


def answer(name: str, arguments: dict[str, Any]) -> Any:
    """A small world to talk to."""
    if name == "add":
        return arguments["a"] + arguments["b"]
    if name == "echo":
        return arguments
    raise CallError(f"no such call: {name}")


@pytest.fixture
def session() -> Iterator[Session]:
    with Session(LIMITS, answer) as shell:
        yield shell


def test_globals_stay(session: Session) -> None:
    assert session.execute("import math\nx = 3\ndef f(): return x * math.sqrt(4)").ok
    assert session.execute("x += 1\nprint(f())").stdout == "8.0\n"


def test_an_error_leaves_the_shell_alive(session: Session) -> None:
    outcome = session.execute("y = 1\nprint('before')\ny / 0")
    assert (outcome.reason, outcome.stdout, outcome.exit_code) == (Reason.ERROR, "before\n", 1)
    assert outcome.stderr.startswith(
        'Traceback (most recent call last):\n  File "<block 1>", line 3, in <module>\n    y / 0'
    )
    assert session.execute("print(y)").stdout == "1\n"


def test_calls_reach_the_parent_and_come_back(session: Session) -> None:
    assert session.execute("print(call('add', a=2, b=40))").stdout == "42\n"
    sent = {"name": "x", "list": [1, 2.5, None, True], "dict": {"k": "é"}}
    assert session.execute(f"assert call('echo', **{sent!r}) == {sent!r}").ok


def test_a_block_may_bring_its_own_callback(session: Session) -> None:
    assert session.execute("print(call('x'))", callback=lambda name, arguments: "mine").stdout == "mine\n"
    assert session.execute("print(call('add', a=1, b=1))").stdout == "2\n"


def test_a_refused_call_is_an_exception_inside(session: Session) -> None:
    outcome = session.execute("try: call('nothing')\nexcept Exception as e: print(type(e).__name__, e)")
    assert outcome.stdout == "CallError no such call: nothing\n"


def test_calls_without_a_callback_are_errors_inside() -> None:
    with Session(LIMITS) as shell:
        assert "nothing answers the call 'f'" in shell.execute("call('f')").stderr


@pytest.mark.parametrize("value", ["float('nan')", "float('inf')", "object()", "b'x'"])
def test_what_json_cannot_say_is_an_error_inside(session: Session, value: str) -> None:
    assert session.execute(f"call('echo', x={value})").reason is Reason.ERROR
    assert session.execute("print(call('add', a=1, b=1))").stdout == "2\n"


@pytest.mark.parametrize("error", [ZeroDivisionError, FileNotFoundError, TimeoutError])
def test_a_callback_that_fails_is_the_hosts_error_and_ends_the_session(error: type[Exception]) -> None:
    def broken(name: str, arguments: dict[str, Any]) -> Any:
        raise error("the world is broken")

    shell = Session(LIMITS, broken)
    with pytest.raises(error, match="the world is broken"):
        shell.execute("call('x')")
    assert not shell.alive
    assert shell.execute("1").reason is Reason.KILLED


def test_a_callback_that_answers_nan_is_the_hosts_error() -> None:
    with Session(LIMITS, lambda name, arguments: float("nan")) as shell, pytest.raises(ValueError, match="JSON"):
        shell.execute("call('x')")


def test_a_timeout_leaves_the_shell_alive(session: Session) -> None:
    session.execute("z = 9")
    for code in (
        "while True: pass",
        "import time; time.sleep(60)",
        "while True:\n    try: 1 / 0\n    except Exception: pass",
    ):
        outcome = session.execute(code, wall_s=0.2)
        assert (outcome.reason, outcome.exit_code) == (Reason.TIMEOUT, None)
    assert session.execute("print(z)").stdout == "9\n"


def test_a_block_that_will_not_be_interrupted_is_killed(session: Session) -> None:
    outcome = session.execute(
        "import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass", wall_s=0.2
    )
    assert outcome.reason is Reason.TIMEOUT
    assert not session.alive
    assert session.execute("print(1)") == outcome


def test_time_spent_in_callbacks_does_not_kill() -> None:
    def slow(name: str, arguments: dict[str, Any]) -> str:
        time.sleep(1.8)
        return "late"

    with Session(LIMITS, slow) as shell:
        outcome = shell.execute("call('x')", wall_s=0.5)
        assert outcome.reason is Reason.TIMEOUT
        assert shell.execute("print('alive')").stdout == "alive\n"


def test_leaving(session: Session) -> None:
    assert session.execute("import sys; sys.exit()").ok
    outcome = session.execute("sys.exit('why')")
    assert (outcome.reason, outcome.exit_code, outcome.stderr) == (Reason.ERROR, 1, "why\n")
    assert session.alive
    outcome = session.execute("import os; os._exit(7)")
    assert (outcome.reason, outcome.exit_code) == (Reason.ERROR, 7)
    assert not session.alive


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import ctypes; ctypes.string_at(0)", Reason.KILLED),
        ("import os; os.write(1, b'x' * 5000)\nwhile True: pass", Reason.OUTPUT),
        ("import os; os.close(3)", Reason.ERROR),
        ("import os; os._exit(0)", Reason.ERROR),
    ],
)
def test_deaths(session: Session, code: str, reason: Reason) -> None:
    outcome = session.execute(code, wall_s=2)
    assert outcome.reason is reason
    assert not session.alive


def test_too_much_output_ends_the_block_only(session: Session) -> None:
    outcome = session.execute("while True: print('x' * 100)")
    assert outcome.reason is Reason.OUTPUT
    assert len(outcome.stdout) == LIMITS.output_bytes
    assert session.execute("print('fine')").stdout == "fine\n"


def test_too_much_memory_ends_the_block_only(session: Session) -> None:
    assert session.execute("x = bytearray(10**10)").reason is Reason.MEMORY
    assert session.execute("print('fine')").stdout == "fine\n"


def test_processor_time_is_the_whole_sessions() -> None:
    with Session(Limits(cpu_s=1, wall_s=20)) as shell:
        outcome = shell.execute("while True: pass")
        assert outcome.reason is Reason.CPU
        assert not shell.alive


def test_processor_time_of_a_block_leaves_the_shell_alive(session: Session) -> None:
    session.execute("z = 9")
    outcome = session.execute("while True: pass", cpu_s=0.2)
    assert (outcome.reason, outcome.detail) == (Reason.CPU, "used more than 0.2 s of processor time")
    assert session.execute("import time; time.sleep(0.5); print(z)", cpu_s=0.2).stdout == "9\n"  # waiting costs none
    assert session.execute("end = time.process_time() + 0.5\nwhile time.process_time() < end: pass").ok


def test_processor_time_of_a_block_that_will_not_be_interrupted_ends_the_session(session: Session) -> None:
    deaf = "import signal; signal.signal(signal.SIGPROF, signal.SIG_IGN)\nwhile True: pass"
    outcome = session.execute(deaf, cpu_s=0.1)
    assert outcome.reason is Reason.CPU
    assert not session.alive


def test_processor_time_of_a_blocks_children_counts(session: Session) -> None:
    outcome = session.execute("import os\nif os.fork() == 0:\n    while True: pass\nos.wait()", cpu_s=0.1)
    assert outcome.reason is Reason.CPU
    assert not session.alive


def test_calls_from_threads(session: Session) -> None:
    outcome = session.execute(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    print(list(pool.map(lambda i: call('add', a=i, b=i), range(8))))"
    )
    assert outcome.stdout == "[0, 2, 4, 6, 8, 10, 12, 14]\n"


def test_a_thread_that_outlives_its_block_cannot_call(session: Session) -> None:
    session.execute(
        "import threading, time\nseen = []\n"
        "def late():\n    time.sleep(0.3)\n    try: call('echo')\n    except Exception as e: seen.append(str(e))\n"
        "threading.Thread(target=late).start()"
    )
    time.sleep(1.0)
    assert session.execute("print(seen)").stdout == "['no block is running']\n"


LIES = {
    "garbage": "b'\\x00\\x00\\x00\\x04abcd'",
    "too long": "b'\\xff\\xff\\xff\\xff'",
    "not an object": "b'\\x00\\x00\\x00\\x02[]'",
    "neither": "b'\\x00\\x00\\x00\\x02{}'",
    "deep": "struct.pack('!I', 200000) + b'[' * 200000",
    "nan": 'struct.pack(\'!I\', 42) + b\'{"call": "echo", "kwargs": {"x": NaN}}     \'',
    "malformed result": "struct.pack('!I', 12) + b'{\"done\": {}} '[:12]",
    "wrong types": 'struct.pack(\'!I\', 46) + b\'{"done": {"reason": "ok", "stdout": 1}}\'.ljust(46)',
    "unknown reason": 'struct.pack(\'!I\', 40) + b\'{"done": {"reason": "superb"}}\'.ljust(40)',
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_shell_that_lies_loses_its_session(session: Session, lie: str) -> None:
    outcome = session.execute(f"import os, struct, time\nos.write(3, {lie})\ntime.sleep(60)")
    assert outcome.reason is Reason.KILLED
    assert not session.alive


@pytest.mark.parametrize(
    "flood",
    [
        "while True: call('echo', x='x' * 100_000)",
        "while True: call('echo')",
        "call('echo', x='x' * (9 << 20))",
        "call('echo', x=[[] for _ in range(1_100_000)])",
    ],
    ids=["large calls", "many calls", "one large call", "many lists"],
)
def test_what_calls_send_to_the_parent_is_bounded(flood: str) -> None:
    kept: list[Any] = []
    with Session(Limits(wall_s=60, memory_mib=1024), lambda name, arguments: kept.append(arguments)) as shell:
        assert shell.execute("call('echo', x='x' * (7 << 20))").ok  # of one block; the next has as much again
        kept.clear()
        outcome = shell.execute(flood)
        assert (outcome.reason, shell.alive) == (Reason.OUTPUT, False)
        assert len(kept) <= (8 << 20) / 512
        assert sum(len(arguments.get("x", "")) for arguments in kept) <= 8 << 20


def test_closing_twice_is_fine(session: Session) -> None:
    session.close()
    session.close()
    assert session.execute("1").detail == "the session is closed"
