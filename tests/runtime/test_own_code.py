"""A user's own code, in a folder outside the checkout with a file beside it, in every process of a run; and a run
started in a folder whose files are called like packages.

Left out: what of a folder travels (tests/reward/test_packages.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from .conftest import TINY

ENV = """
import os
import my_words
from rlpost.envs.base import Demonstration, Env, Message, Observation, Score, Task


class Mine(Env):
    def __init__(self, task, seed, turns=1):
        super().__init__(task, seed)

    @classmethod
    def tasks(cls, split, seed, **options):
        return [Task(f"{split}-{number}", {"split": split, "number": number}) for number in range(32)]

    @classmethod
    def demonstrations(cls, split, seed, count, **options):
        return [Demonstration([Message(role="user", content=my_words.ASK), Message(role="assistant", content="yes")])
                for _ in range(count)]

    def start(self):
        return [Message(role="user", content=my_words.ASK)]

    def step(self, text):
        return Observation("", done=True)

    def score(self):
        return Score(float(len(set(my_words.__file__ + os.getcwd())) > 0), {"length": float(len(my_words.ASK))})
"""
ALGORITHM = """
from my_words import baseline
from rlpost.algorithms.base import Algorithm, LossOutput


class Mine(Algorithm):
    def advantages(self, groups):
        return [group.rewards - baseline() for group in groups]

    def loss(self, views, constants):
        return LossOutput(-(views.advantages * views.logprobs)[views.mask].sum() / constants.tokens)
"""
WORDS = """
from pathlib import Path

ASK = (Path(__file__).parent / "ask.txt").read_text()


def baseline():
    return 0.5
"""
CLASHES = ("reward.py", "rollout.py", "envs/__init__.py", "algorithms.py", "datasets.py", "torch.py", "my_env.py")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The user's folder."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name, text in {"my_env.py": ENV, "my_algo.py": ALGORITHM, "my_words.py": WORDS, "ask.txt": "well?"}.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def clashing(tmp_path: Path) -> Path:
    """A folder to start in: every file raises where it is imported."""
    folder = tmp_path / "clashing"
    for name in CLASHES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"raise RuntimeError('{name} of the working directory was imported')\n")
    return folder


def start(arguments: list[str], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Python as the installed command starts it: the working directory is not on its path."""
    command, environment = [sys.executable, "-P", *arguments], os.environ | variables
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


ACTOR = """
import json, os, sys
import ray
from rlpost.cluster import ray_cluster
from rlpost.reward.plugins import Plugin, packages

class Probe:
    def look(self, plugin):
        loaded = plugin.load()
        import datasets, torch
        return {"cwd": os.getcwd(), "ask": sys.modules["my_words"].ASK, "from": sys.modules["my_words"].__file__,
                "mine": loaded(None, 0), "installed": [torch.__file__, datasets.__file__], "path": sys.path}

sys.path.append(os.getcwd())
plugin = Plugin.locate(sys.argv[1])
plugin.load()  # as the driver does when the recipe loads
with ray_cluster(None, packages(plugin)) as ray_is_up:
    ray_is_up()
    probe = ray.remote(Probe).options(runtime_env={"env_vars": {"A": "b"}}).remote()
    found = ray.get(probe.look.remote(plugin))
print("FOUND", json.dumps(found, default=lambda value: type(value).__module__))
"""


def test_an_actor_sees_the_folder_and_nothing_of_the_working_directory(own: Path, clashing: Path) -> None:
    done = start(["-c", ACTOR, str(own / "my_env.py:Mine")], clashing)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.split("FOUND", 1)[1])
    assert found["cwd"] == str(clashing)
    assert found["ask"] == "well?"
    assert "py_modules" in found["from"]  # what was sent, not the folder itself
    assert found["mine"].startswith("rlpost_user_")  # instances cross processes: their module is found everywhere
    assert all("site-packages" in place for place in found["installed"])
    assert str(clashing) not in found["path"]


@pytest.mark.slow
def test_a_run_in_a_folder_of_clashing_names(own: Path, clashing: Path, tmp_path: Path) -> None:
    """Warm start, rollout worker and learner each use the folder; none imports a file of the working directory."""
    values = {
        **TINY,
        "env": {"name": "my_env.py:Mine", "options": {"turns": 1}},
        "algorithm": {"name": "my_algo.py:Mine"},
        "warm_start": {"steps": 1, "batch_size": 2, "examples": 8},
    }
    (own / "mine.yaml").write_text(yaml.safe_dump(values))
    command = ["-m", "rlpost.cli", "train", str(own / "mine.yaml"), "--smoke", "--out", str(tmp_path / "run")]
    # Without what vLLM remembers of models it starts a process to look at them.
    done = start(command, clashing, VLLM_CACHE_ROOT=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["reward/mean"] for row in rows] == [1.0, 1.0]
    assert os.path.isabs(yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["env"]["name"].split(":")[0])
