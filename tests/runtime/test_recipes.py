"""Recipes run by name with --smoke from an installed wheel; the README's environment runs as printed there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rlpost.algorithms.d3s import D3SConfig
from rlpost.placement import count_gpus
from rlpost.reward.sandbox import isolation

from ..support.installed import Installed, install_wheel
from .conftest import TINY

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
FAST = {"quickstart"}
"""Smoke runs of the fast tier, one a method; the others run in the full tier."""


def cli(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """``rlpost ...`` as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "rlpost.cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return install_wheel(tmp_path_factory.mktemp("installed"))


@pytest.mark.parametrize(
    "recipe", [pytest.param(r, id=r.stem, marks=[] if r.stem in FAST else pytest.mark.slow) for r in RECIPES]
)
def test_recipe_runs_with_smoke(recipe: Path, installed: Installed, tmp_path: Path) -> None:
    if "appworld" in recipe.read_text() and isolation() is None:
        pytest.skip("model-written code is refused on this host")
    done = installed.run("train", recipe.stem, "--smoke", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "result.json").exists()
    steps = min(2, yaml.safe_load(recipe.read_text())["steps"])
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == steps


def test_a_wheel_has_one_name_and_all_that_its_commands_list(installed: Installed) -> None:
    [site] = installed.python.parents[1].glob("lib/python3*/site-packages")
    assert {one.name for one in site.iterdir()} - {"dependencies.pth", "__pycache__"} == {
        "rlpost",
        next(site.glob("rlpost-*.dist-info")).name,
    }
    assert not [path for path in site.rglob("*") if path.is_symlink()]
    listed = installed.run("recipes")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [recipe.stem for recipe in RECIPES]
    explained = installed.run("explain", "quickstart")
    assert explained.returncode == 0, explained.stderr
    benched = installed.run("bench", "nothing")
    assert "step_cpu" in benched.stderr
    assert "bgpo_memory" not in benched.stderr  # a study, which only a checkout has


def test_a_recipe_that_is_neither_file_nor_name(tmp_path: Path) -> None:
    done = cli("train", "quickstrat", "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert "did you mean 'quickstart'?" in done.stderr


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_recipe_is_valid_as_it_stands(recipe: Path) -> None:
    from rlpost.recipe import Recipe

    assert Recipe.load(recipe).recipe.steps >= 1


RELATIVES = re.findall(
    r"^#   (\w[\w ]*?)  +(algorithm\S*=.*)$", (ROOT / "recipes/d3s_countdown.yaml").read_text(), re.M
)


def test_the_relatives_of_d3s_are_listed() -> None:
    assert [name for name, _ in RELATIVES] == ["GRPO", "PODS", "D1S group", "D1S batch", "D2S", "GSPO", "DAPO"]


@pytest.mark.parametrize(("name", "override"), RELATIVES)
def test_a_relative_of_d3s_is_one_line_away(name: str, override: str) -> None:
    from rlpost.recipe import Recipe

    found = Recipe.load(ROOT / "recipes/d3s_countdown.yaml", [override]).built
    assert type(found).__name__ == ("GSPO" if name == "GSPO" else "GRPO")
    assert (found.selector.options if found.selector.config else None) == {  # type: ignore[attr-defined]
        "PODS": D3SConfig(samples=25, tokens=100, scope="group", renormalize=True),
        "D1S group": D3SConfig(samples=25, tokens=100, scope="group"),
        "D1S batch": D3SConfig(samples=25, tokens=100),
        "D2S": D3SConfig(samples=25, tokens=50),
        "GSPO": D3SConfig(),
    }.get(name)
    assert found.refill_budget == (16 if name == "DAPO" else 0)


def test_the_readme_environment_runs_as_printed(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(code.splitlines()) < 30
    (tmp_path / "higher_lower.py").write_text(code)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(yaml.safe_dump({**TINY, "steps": 1, "env": {"name": "higher_lower.py:HigherLower"}}))
    done = cli("train", str(recipe), "--out", str(tmp_path / "run"), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mistakes_exit_with_two_and_start_nothing(tmp_path: Path) -> None:
    wrong = cli("train", str(RECIPES[0]), "batch.taks=3", "--out", str(tmp_path / "run"))
    assert wrong.returncode == 2
    assert "did you mean 'tasks'" in wrong.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(count_gpus() > 0, reason="this machine has a GPU")
def test_a_gpu_asked_for_and_not_there_is_refused(tmp_path: Path) -> None:
    done = cli("train", str(RECIPES[0]), "learner.device=cuda", "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert "this machine has none" in done.stderr
    assert not (tmp_path / "run").exists()


def test_explain_starts_nothing_and_prints_the_numbers() -> None:
    done = cli("explain", str(ROOT / "recipes" / "quickstart.yaml"))
    assert done.returncode == 0, done.stderr
    for words in ("rollouts", "optimizer updates", "parameters", "learner", "rollout workers"):
        assert words in done.stdout


def test_the_recipe_page_is_up_to_date() -> None:
    from rlpost.recipe_docs import render

    assert (ROOT / "docs" / "recipes.md").read_text() == render()
