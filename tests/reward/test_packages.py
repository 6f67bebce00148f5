"""A user's folder as a package: what of it travels, what is refused, and that nothing installed gives way to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlpost.reward import packages
from rlpost.reward.packages import LARGEST_DATA, Package
from rlpost.reward.plugins import Plugin, PluginError, located, named


def test_what_travels(tmp_path: Path) -> None:
    wanted = {"my_env.py", "sub/more.py", "words.json", "chat.jinja"}
    left = {".git/x.py", "runs/a/x.py", "venv/pyvenv.cfg", "venv/x.py", "old_run/metrics.jsonl", "old_run/x.json"}
    left |= {"__pycache__/x.py", "node_modules/x.json", ".hidden.py", "weights.bin", "large.jsonl"}
    for name in wanted | left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a" if name != "large.jsonl" else "a" * (LARGEST_DATA + 1))
    copy = Package.of(tmp_path).copy
    assert {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()} == wanted


def test_the_name_says_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1")
    first = Package.of(tmp_path)
    (tmp_path / "a.py").write_text("x = 2")
    assert first.name != Package.of(tmp_path).name
    assert (first.copy / "a.py").read_text() == "x = 1"  # what was read is what travels


@pytest.mark.parametrize(("name", "value", "words"), [("LIMIT", 10, "0 MiB of code"), ("MOST_SEEN", 2, "2 files")])
def test_what_is_too_large_is_refused(
    name: str, value: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, name, value)
    for number in range(4):
        (tmp_path / f"mine_{number}.py").write_text("x = 1\n")
    with pytest.raises(PluginError, match=rf"holds more than {words}.*Put that code into a folder of its own"):
        Plugin.locate("mine_0.py:x", tmp_path)


def test_each_file_finds_the_one_beside_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "helper_of_both.py").write_text(f"SAYS = '{name}'\n")
        (tmp_path / name / "mine.py").write_text("from helper_of_both import SAYS\n")
    found = [Plugin.locate(f"{name}/mine.py:SAYS", tmp_path).load() for name in ("one", "two", "one")]
    assert found == ["one", "two", "one"]


def test_a_file_that_changed_is_read_again_and_nothing_else_is_forgotten(tmp_path: Path) -> None:
    before = set(sys.modules)
    for word in ("one", "three"):  # of different lengths, so that the cached bytecode is seen to be old
        (tmp_path / "changing_helper.py").write_text(f"SAYS = '{word}'\n")
        (tmp_path / "mine.py").write_text("from changing_helper import SAYS\n")
        assert Plugin.locate("mine.py:SAYS", tmp_path).load() == word
    lost = before - set(sys.modules)
    assert not [name for name in lost if name.startswith(("rlpost.", "tests", "_pytest", "numpy"))]


def test_the_current_directory_stays_behind_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "helper_twice.py").write_text(f"SAYS = '{name}'\n")
        (tmp_path / name / "mine_too.py").write_text("from helper_twice import SAYS\n")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "here")])
    found = [Plugin.locate(target).load() for target in ("../there/mine_too.py:SAYS", "mine_too:SAYS")]
    assert found == ["there", "here"]


def test_a_file_of_a_package_imports_from_it(tmp_path: Path) -> None:
    (tmp_path / "my_package" / "deep").mkdir(parents=True)
    for folder in ("my_package", "my_package/deep"):
        (tmp_path / folder / "__init__.py").write_text("")
    (tmp_path / "my_package" / "words.py").write_text("SAYS = 'hello'\n")
    (tmp_path / "my_package" / "deep" / "mine.py").write_text(
        "from ..words import SAYS\nfrom my_package.words import SAYS as AGAIN\n"
    )
    assert Plugin.locate("my_package/deep/mine.py:AGAIN", tmp_path).load() == "hello"


CLASHES = ("torch.py", "reward.py", "datasets.py", "envs/__init__.py")
PROBE = """
import sys
from rlpost.reward.plugins import Plugin
plugin = Plugin.locate(sys.argv[1])
print(plugin.load()(), plugin.package is not None)
import numpy
assert "site-packages" in numpy.__file__
"""


@pytest.mark.parametrize("target", ["{folder}/numpy.py:says", "my_module:says"])
def test_no_file_stands_before_an_installed_package(target: str, tmp_path: Path) -> None:
    """A file called like one is still loaded where it is named; a module of the current directory travels too."""
    for name in CLASHES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"raise RuntimeError('{name} was imported')\n")
    (tmp_path / "helper_mod.py").write_text("WORD = 'hello'\n")
    for name in ("numpy.py", "my_module.py"):
        (tmp_path / name).write_text("import helper_mod\n\n\ndef says():\n    return helper_mod.WORD\n")
    code = "import sys, os; sys.path.append(os.getcwd())" + PROBE
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, target.format(folder=tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == "hello True", done.stderr


def test_options_with_code_in_them(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def f():\n    return 1\n")
    options = {"reward": "mine.py:f", "more": [{"judge": "mine.py:f"}], "data": "owner/name:main", "url": "http://x:80"}
    found = located(options, tmp_path)
    assert isinstance(found["reward"], Plugin)
    assert found["more"][0]["judge"].load()() == 1
    assert (found["data"], found["url"]) == (options["data"], options["url"])
    assert named(found)["more"] == [{"judge": f"{tmp_path}/mine.py:f"}]


def test_code_that_did_not_come_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "mine.py").write_text("x = 1\n")
    plugin = Plugin.locate("gone/mine.py:x", tmp_path)
    (tmp_path / "gone" / "mine.py").unlink()
    (tmp_path / "gone").rmdir()
    with pytest.raises(PluginError, match=r"gone did not come to this process.*cluster\.address"):
        plugin.load()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"import sys\nsys.exit(3)\n", "SystemExit: 3"),
        (b"x = '\xff\xfe'\n", "SyntaxError"),
        (b"def f(:\n", "SyntaxError"),
        (b"raise OSError('no such shop')\n", "OSError: no such shop"),
    ],
)
def test_a_file_that_cannot_be_run_is_refused_every_time(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_bytes(content)
    plugin = Plugin.locate("broken.py:reward", tmp_path)
    for _ in range(2):
        with pytest.raises(PluginError, match=rf"cannot import .*broken\.py.*{words}"):
            plugin.load()
