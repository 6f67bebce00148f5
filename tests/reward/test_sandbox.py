"""One-shot programs: outcomes, limits, packages, threads, the machinery's own death, and hosts without isolation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest

from rlpost.reward import sandbox
from rlpost.reward.sandbox import Limits, Reason, launcher
from rlpost.reward.sandbox.inside.filesystem import SCRATCH

CHECKOUT = Path(__file__).parents[2]
needs_isolation = pytest.mark.skipif(sandbox.isolation() is None, reason=sandbox.isolation_problem())


@needs_isolation
def test_an_honest_program() -> None:
    outcome = sandbox.run(
        "import sys\nprint('out')\nprint('err', file=sys.stderr)\nif __name__ == '__main__': print(6 * 7)"
    )
    assert outcome.ok
    assert (outcome.stdout, outcome.stderr, outcome.exit_code, outcome.signal) == ("out\n42\n", "err\n", 0, None)
    assert 0 < outcome.wall_s < 10


@needs_isolation
def test_an_error_shows_its_lines() -> None:
    outcome = sandbox.run("def f(x):\n    return 1 / x\nf(0)")
    assert (outcome.reason, outcome.exit_code) == (Reason.ERROR, 1)
    assert outcome.stderr.splitlines()[:4] == [
        "Traceback (most recent call last):",
        '  File "<program>", line 3, in <module>',
        "    f(0)",
        '  File "<program>", line 2, in f',
    ]
    assert outcome.stderr.endswith("ZeroDivisionError: division by zero\n")


@needs_isolation
@pytest.mark.parametrize(
    ("program", "reason", "code", "number"),
    [
        ("import sys; sys.exit(3)", Reason.ERROR, 3, None),
        ("import os; os._exit(5)", Reason.ERROR, 5, None),
        ("this is no Python", Reason.ERROR, 1, None),
        ("x = '\0'", Reason.ERROR, 1, None),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", Reason.KILLED, None, signal.SIGTERM),
        ("print('\ud800')", Reason.REFUSED, None, None),
        ("#" * (5 << 20), Reason.REFUSED, None, None),
    ],
)
def test_exit_codes_and_signals(program: str, reason: Reason, code: int | None, number: int | None) -> None:
    outcome = sandbox.run(program)
    assert (outcome.reason, outcome.exit_code, outcome.signal) == (reason, code, number)
    assert outcome.ok is False


@needs_isolation
def test_undecodable_output_is_kept_readable() -> None:
    assert sandbox.run("import os; os.write(1, b'a\\xff')").stdout == "a\ufffd"


@needs_isolation
def test_output_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    limits = Limits(output_bytes=1000)
    assert sandbox.run("print('x' * 999)", limits).stdout == "x" * 999 + "\n"
    outcome = sandbox.run("print('x' * 1000)", limits)
    assert (outcome.reason, outcome.stdout) == (Reason.OUTPUT, "x" * 1000)


@needs_isolation
def test_a_program_can_use_the_memory_it_was_given() -> None:
    limits = Limits(memory_mib=256)
    assert sandbox.run("x = b'x' * (200 << 20); print(len(x))", limits).stdout == "209715200\n"
    assert sandbox.run("x = b'x' * (300 << 20)", limits).reason is Reason.MEMORY


@needs_isolation
def test_programs_are_reproducible() -> None:
    program = "print(list({'a', 'b', 'c', 'd'}))"
    assert sandbox.run(program).stdout == sandbox.run(program).stdout


@needs_isolation
def test_but_random_numbers_differ() -> None:
    program = "import random; print(random.random())"
    assert sandbox.run(program).stdout != sandbox.run(program).stdout


@needs_isolation
def test_a_package_is_visible_where_it_is_asked_for() -> None:
    program = "import mpmath; print(mpmath.mpf(2) ** 3); import sympy"
    outcome = sandbox.run(program, packages=("mpmath",))
    assert outcome.stdout == "8.0\n"
    assert "No module named 'sympy'" in outcome.stderr


def test_an_unknown_package_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match="'no_such_package' was asked for in the sandbox"):
        sandbox.run("", packages=("no_such_package",), unsafe=True)


@needs_isolation
def test_a_package_may_import_one_that_was_installed_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"upper": "import lower\nanswer = lower.answer\n", "lower": "answer = 42\n"}.items():
        (tmp_path / name / f"{name}-1.0.dist-info").mkdir(parents=True)
        (tmp_path / name / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path / name)
    outcome = sandbox.run("import upper\nprint(upper.answer)", packages=("upper",))
    assert (outcome.ok, outcome.stdout) == (True, "42\n"), outcome


@needs_isolation
def test_a_package_below_the_scratch_folder_is_imported_piece_by_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory(dir=SCRATCH) as place:  # as where an environment was made under /tmp
        package = Path(place) / "bits"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "later.py").write_text("answer = 42\n")
        monkeypatch.syspath_prepend(place)
        program = (
            "from bits import later\nprint(later.answer)\nopen('own', 'w').write('mine')\n"
            f"open({str(package / 'later.py')!r}, 'w')"
        )
        outcome = sandbox.run(program, packages=("bits",))
        assert outcome.stdout == "42\n", outcome
        assert "Read-only file system" in outcome.stderr or "Permission denied" in outcome.stderr
        assert (package / "later.py").read_text() == "answer = 42\n"
    assert sandbox.run("import os; print(os.listdir('/tmp'))").stdout == "[]\n"


@pytest.mark.parametrize("name", ["wall_s", "cpu_s", "memory_mib", "processes", "output_bytes", "file_bytes"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_are_positive(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})  # type: ignore[arg-type]


@needs_isolation
def test_many_threads_at_once() -> None:
    said: dict[int, str] = {}

    def work(i: int) -> None:
        said[i] = sandbox.run(f"print({i} ** 2)").stdout

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == {i: f"{i * i}\n" for i in range(12)}


@needs_isolation
def test_a_killed_zygote_is_replaced() -> None:
    sandbox.run("pass")
    zygote = launcher._zygotes[(), True, os.getpid()]
    zygote.process.kill()
    assert sandbox.run("print('still works')").stdout == "still works\n"
    assert launcher._zygotes[(), True, os.getpid()].process.pid != zygote.process.pid


@needs_isolation
def test_programs_go_first_where_memory_runs_out_and_their_keepers_do_not() -> None:
    own = Path("/proc/self/oom_score_adj").read_text().strip()
    with sandbox.Session() as session:
        assert session.execute("pass").ok
        keeper, init, program = _newest_line()
        scores = [Path(f"/proc/{pid}/oom_score_adj").read_text().strip() for pid in (keeper, init, program)]
    assert scores[1:] == ["1000", "1000"]
    assert int(scores[0]) <= max(0, int(own)) if os.geteuid() == 0 else int(scores[0]) <= int(own)


@pytest.mark.skipif(sandbox.isolation() is None or launcher.cgroup() == "", reason="no cgroup v2 for programs here")
def test_a_group_counts_what_no_process_holds_and_is_gone_afterwards() -> None:
    sockets = """
import socket
kept = []
while True:
    kept.append(socket.socketpair())
    for end in kept[-1]:
        end.setblocking(False)
        try:
            while True: end.send(b"x" * 65536)
        except OSError: pass
"""
    small = "x = bytearray(20 << 20)\nprint('fits')"
    limits = Limits(memory_mib=32, file_bytes=1 << 20)
    assert sandbox.run(small, limits).stdout == "fits\n"
    outcome = sandbox.run("import os\nfor _ in range(20):\n    if os.fork() == 0: break\n" + sockets, limits)
    assert outcome.reason in (Reason.MEMORY, Reason.ERROR)  # or the program saw that it may open no more files
    assert outcome.memory_mib < 64
    before = os.listdir(launcher.cgroup())
    sandbox.run("pass")
    assert len(os.listdir(launcher.cgroup())) <= len(before) + 1


@needs_isolation
def test_the_death_of_the_host_is_the_death_of_all() -> None:
    host = subprocess.Popen([sys.executable, "-c", _HOST], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    assert host.stdout.readline() == "ready\n"
    family = _family(host.pid)
    assert len(family) >= 4  # zygote, keeper, init, program
    host.kill()
    host.wait()
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in family) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in family if _alive(pid)] == []


_HOST = """
from rlpost.reward.sandbox import Limits, Session
session = Session(Limits(wall_s=600), callback=lambda name, arguments: print("ready", flush=True))
session.execute("call('ready'); import time; time.sleep(600)")
"""


def _parents() -> dict[int, int]:
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    return parents


def _family(pid: int) -> list[int]:
    parents = _parents()
    family = [pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family[1:]


def _newest_line() -> list[int]:
    """The youngest keeper below this process's zygotes, its init and the program."""
    parents = _parents()
    zygotes = {zygote.process.pid for zygote in launcher._zygotes.values()}
    line = [max(pid for pid, parent in parents.items() if parent in zygotes)]
    for _ in range(2):
        line.append(next(pid for pid, parent in parents.items() if parent == line[-1]))
    return line


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _in_a_child(program: str, **popen: object) -> str:
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
        **popen,
    )  # type: ignore[call-overload]
    return child.stdout + child.stderr


_WITHOUT_ISOLATION = """
import os
from rlpost.reward import sandbox
from rlpost.reward.sandbox.inside import identity, kernel
identity.unshare_with_user(os.open("/proc", os.O_RDONLY), kernel.CLONE_NEWNS)
open("/proc/sys/user/max_user_namespaces", "w").write("0")
kernel.drop_capabilities()
"""


@needs_isolation
def test_a_host_without_isolation_is_refused_with_words() -> None:
    said = _in_a_child(
        _WITHOUT_ISOLATION
        + """
assert sandbox.isolation() is None
for refused in (lambda: sandbox.run("print('ran')"), sandbox.Session):
    try:
        refused()
    except sandbox.SandboxUnavailable as error:
        print(error)
"""
    )
    lines = said.splitlines()
    assert len(lines) == 2, said
    for line in lines:
        assert line.startswith("this host does not let programs be isolated: ")
        assert "sandbox: unsafe" in line


@needs_isolation
def test_unsafe_runs_there_all_the_same() -> None:
    said = _in_a_child(
        _WITHOUT_ISOLATION
        + """
limits = sandbox.Limits(wall_s=2)
daemon = "import os, time\\nif os.fork() == 0:\\n    os.setsid(); time.sleep(600)\\nprint(os.getcwd())"
outcome = sandbox.run(daemon, limits, unsafe=True)
print(outcome.reason, os.path.exists(outcome.stdout.strip()))
print(sandbox.run("while True: pass", limits, unsafe=True).reason)
print(sandbox.run("bytearray(10**10)", limits, unsafe=True).reason)
sandbox.allow_unsafe()
with sandbox.Session(limits) as session:
    session.execute("x = 5")
    print(session.execute("print(x)").stdout, end="")
import subprocess, sys  # what this process starts may too, as the workers of a run do
child = "from rlpost.reward import sandbox; print(sandbox.run('print(6)').stdout, end='')"
print(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout, end="")
sandbox.allow_unsafe(False)
try:
    sandbox.run("pass")
except sandbox.SandboxUnavailable:
    print("refused")
"""
    )
    assert said.splitlines() == ["ok False", "timeout", "memory", "5", "6", "refused"], said


_ROOT_WITHOUT_USER_NAMESPACES = """
import os, sys
from rlpost.reward import sandbox
from rlpost.reward.sandbox.inside import kernel
(ready, readied), (mapped, mapping) = os.pipe(), os.pipe()
child = os.fork()
if child:  # root maps many users for the child, which then is root over these, and forbids namespaces of users
    os.read(ready, 1)
    for kind in ("gid_map", "uid_map"):
        open(f"/proc/{child}/{kind}", "w").write("0 0 65536")
    os.write(mapping, b"x")
    os.waitpid(child, 0)
    os._exit(0)
kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
os.write(readied, b"x")
os.read(mapped, 1)
os.setresgid(0, 0, 0)
os.setresuid(0, 0, 0)
open("/proc/sys/user/max_user_namespaces", "w").write("0")
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""


@needs_isolation
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may do without user namespaces")
def test_root_does_without_user_namespaces() -> None:
    program = """
from rlpost.reward import sandbox
print(sandbox.isolation() is not None)
print(sandbox.run("import os; print(os.getuid(), os.getpid(), os.path.exists('/etc'))").stdout, end="")
print(sandbox.run("import os; os.setuid(0)").stderr.splitlines()[-1])
print(sandbox.run("import os\\nwhile True: os.fork()", sandbox.Limits(wall_s=2)).reason)
"""
    arguments = [sys.executable, "-c", _ROOT_WITHOUT_USER_NAMESPACES, program]
    child = subprocess.run(arguments, cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
    said = child.stdout.splitlines()
    assert said == ["True", "65534 2 False", "PermissionError: [Errno 1] Operation not permitted", "error"], (
        child.stderr
    )


@needs_isolation
@pytest.mark.skipif(os.geteuid() != 0, reason="the whole suite runs as an ordinary user then")
def test_an_ordinary_user_gets_the_same_isolation() -> None:
    python = next((p for p in (sys.executable, "/usr/bin/python3") if _works_for_nobody(p)), None)
    if python is None:
        pytest.skip("no Python 3.11 here that another user could run")
    program = f"""
import sys; sys.path.insert(0, {str(CHECKOUT)!r})
from rlpost.reward import sandbox
print(sandbox.isolation() is not None)
print(sandbox.run("import os; print(os.getuid(), os.getpid(), os.path.exists('/etc'))").stdout, end="")
print(sandbox.run("import os\\nwhile True: os.fork()", sandbox.Limits(wall_s=2)).reason)
"""
    child = subprocess.run(
        [python, "-c", program], user=65534, group=65534, extra_groups=[], capture_output=True, text=True
    )
    assert child.stdout.splitlines() == ["True", "1000 2 False", "error"], child.stderr


def _works_for_nobody(python: str) -> bool:
    version = (
        f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); import rlpost.reward; sys.exit(sys.version_info < (3, 11))"
    )
    try:
        return subprocess.run([python, "-c", version], user=65534, group=65534, extra_groups=[]).returncode == 0
    except OSError:
        return False
