"""rlpost as its users have it: a wheel in an environment without a checkout, run in a folder full of clashing names.

The environment's own site-packages hold the wheel alone; what rlpost depends on is read from the environment of the
tests, without its ``.pth`` files, so that no checkout is in reach. Left out: the installation of the dependencies.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLASHING = ("algorithms", "benchmarks", "envs", "recipes", "reward", "rollout", "datasets", "tests", "torch", "ray")


@dataclass(frozen=True, slots=True)
class Installed:
    """An environment with the wheel, and a folder of a user's own files.

    Attributes:
        python: its interpreter.
        folder: holds ``reward.py``, ``rollout.py``, ``envs/`` and more, each of which raises when it is imported.
    """

    python: Path
    folder: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``rlpost ...`` in that folder."""
        command = [str(self.python.with_name("rlpost")), *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=300, check=False)


def copied(folder: Path) -> Path:
    """A copy of this checkout's files, links as links."""
    source = folder / "source"
    tracked = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(tracked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    present = "\0".join(name for name in names if name and (ROOT / name).exists())
    source.mkdir()
    copying = ["xargs", "-0", "cp", "--archive", "--parents", "--target-directory", str(source)]
    subprocess.run(copying, input=present, cwd=ROOT, text=True, check=True)
    return source


def build_wheel(source: Path, folder: Path) -> Path:
    """The wheel of a source tree or source distribution, in ``folder``."""
    pip = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*pip, str(folder), str(source)], check=True, capture_output=True, timeout=120)
    [wheel] = folder.glob("rlpost-*.whl")
    return wheel


def install_wheel(folder: Path) -> Installed:
    """An environment below ``folder`` with the wheel, and the clashing files beside it."""
    wheel, place = build_wheel(copied(folder), folder), folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True, timeout=60)
    python = place / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(python), "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True, timeout=60)
    [site] = (place / "lib").glob("python3*/site-packages")
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    if (openmp := Path(sys.prefix) / "lib" / "libiomp5.so").exists():
        (place / "lib" / openmp.name).symlink_to(openmp)
    mine = folder / "mine"
    for name in CLASHING:
        (mine / name).mkdir(parents=True)
        text = f"raise RuntimeError('the user\\'s own {name} was imported')\n"
        (mine / f"{name}.py").write_text(text)
        (mine / name / "__init__.py").write_text(text)
    return Installed(python, mine)
