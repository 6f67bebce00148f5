"""Every attack comes to the end its table names, touches nothing outside, and leaves nothing behind."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlpost.reward import sandbox
from rlpost.reward.sandbox.inside import kernel, seccomp
from tests.reward.attack import BRIEF, FRUGAL, Attack
from tests.reward.attacks_escape import ESCAPES
from tests.reward.attacks_excess import EXCESS
from tests.reward.attacks_kernel import KERNEL

ATTACKS = [*EXCESS, *ESCAPES, *KERNEL]
SECRET = "hunter2-the-host's-secret"


@dataclass
class Host:
    """What an attack could reach for, and must not."""

    secret: Path
    listener: socket.socket
    running: frozenset[str]
    """Sandboxed processes of other tests (sessions that wait in pools) when the attacks begin."""

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def fill_in(self, program: str) -> str:
        column = ["x86_64", "aarch64"].index(kernel.MACHINE)
        calls = [numbers[column] for numbers in seccomp.REFUSED.values() if numbers[column]]
        places = {"SECRET": self.secret, "FOLDER": self.secret.parent, "PORT": self.port, "PID": os.getpid()}
        places |= {"CALLS": calls, "SIGACTION": (13, 134)[column]}
        for name, value in places.items():
            program = program.replace(f"@{name}@", str(value))
        return program

    def assert_untouched(self) -> None:
        assert self.secret.read_text() == SECRET
        assert os.listdir(self.secret.parent) == [self.secret.name]
        with pytest.raises(BlockingIOError):
            self.listener.accept()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    if sandbox.isolation() is None:
        pytest.skip(sandbox.isolation_problem())
    folder = tmp_path_factory.mktemp("host")
    folder.chmod(0o777)  # whatever stops the programs, it must not be these bits
    secret = folder / "secret.txt"
    secret.write_text(SECRET)
    secret.chmod(0o666)
    os.environ["SANDBOX_TEST_SECRET"] = SECRET
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield Host(secret, listener, frozenset(_below(os.getpid())))
    del os.environ["SANDBOX_TEST_SECRET"]


def _marked(attack: Attack) -> Any:
    """Those that run into the clock take a second or more each; two of them stay in the fast tier."""
    slow = attack.limits in (BRIEF, FRUGAL) and attack.name not in ("endless loop", "fork bomb", "stubborn fork bomb")
    return pytest.param(attack, id=attack.name, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("attack", [_marked(attack) for attack in ATTACKS])
def test_attack_fails(attack: Attack, host: Host) -> None:
    outcome = sandbox.run(host.fill_in(attack.program), attack.limits)
    written = outcome.stdout + outcome.stderr
    assert outcome.reason in attack.ends, (outcome.reason, outcome.detail, written[-2000:])
    assert attack.says in written
    assert "ESCAPED" not in outcome.stdout
    assert SECRET not in written
    assert len(written) <= attack.limits.output_bytes
    assert_held(outcome, attack.limits)
    host.assert_untouched()


def assert_held(outcome: sandbox.Outcome, limits: sandbox.Limits) -> None:
    """Within 10 %, and what passes between a look and a kill on a machine that does other things too."""
    assert outcome.memory_mib <= 1.1 * limits.memory_mib + 16
    assert outcome.cpu_s <= 1.1 * limits.cpu_s + 0.1
    assert outcome.wall_s <= 1.1 * limits.wall_s + 1.0


def test_there_are_enough_attacks() -> None:
    names = [attack.name for attack in ATTACKS if not attack.name.startswith("honest")]
    assert len(set(names)) == len(names) >= 100


def test_nothing_lives_on_after_the_attacks(host: Host) -> None:
    daemon = "import os, time\nif os.fork() == 0:\n    os.setsid(); time.sleep(600)\nprint('left one behind')"
    assert sandbox.run(daemon).stdout == "left one behind\n"
    deadline = time.monotonic() + 20
    while (left := set(_below(os.getpid())) - host.running) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == set()


def _below(pid: int) -> list[str]:
    """Keepers and what they started: processes below a zygote, which is a direct child of this process. Other children,
    such as another test's Ray cluster, have processes of their own."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(folder.name)] = int(fields[1])
    zygotes = {p for p, parent in parents.items() if parent == pid and "inside.zygote" in _command(p)}
    return [str(p) for p, parent in parents.items() if parent in zygotes]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


LITTER = """
import builtins, json, math, os, sys, tempfile
open("litter.txt", "w").write("litter")
open("/dev/shm/litter", "w").write("litter")
os.environ["LITTER"] = "1"
builtins.litter = json.litter = sys.modules["litter"] = "litter"
builtins.len = math.sqrt = lambda x: 0
os.umask(0)
print("littered")
"""
LOOK = """
import builtins, json, math, os, sys
assert os.listdir("/tmp") == [], os.listdir("/tmp")
assert "LITTER" not in os.environ and "litter" not in sys.modules
assert not hasattr(builtins, "litter") and not hasattr(json, "litter")
assert len("abc") == 3 and math.sqrt(9) == 3
assert os.umask(0) != 0
print("clean")
"""


def test_nothing_leaks_into_the_next_program(host: Host) -> None:
    for _ in range(3):
        assert sandbox.run(LITTER).stdout == "littered\n"
        outcome = sandbox.run(LOOK)
        assert outcome.stdout == "clean\n", outcome.stderr


def test_programs_side_by_side_do_not_see_each_other(host: Host) -> None:
    with sandbox.Session() as one, sandbox.Session() as other:
        assert one.execute("import os; open('mine', 'w').write('x'); print(os.getpid())").stdout == "2\n"
        seen = other.execute("import os; print(os.listdir('.'), os.getpid())")
        assert seen.stdout == "[] 2\n"
        assert other.execute("os.kill(-1, 9)").reason is not None
        assert one.execute("print(os.listdir('.'))").stdout == "['mine']\n"
