"""``sandbox: unsafe``: a key of recipes and evaluations, said aloud and recorded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlpost import sandbox_choice
from rlpost.eval.settings import settle
from rlpost.recipe import Recipe, RecipeError
from rlpost.report import ResultRecord, read_result, write_result
from rlpost.reward.sandbox import ALLOWED

RECIPE = """
model: {path: some/model}
env: {name: "rlpost.envs.countdown:Countdown"}
"""


@pytest.fixture(autouse=True)
def _restore(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ALLOWED:
        monkeypatch.setenv(name, "")


def test_it_is_a_key_of_the_recipe_and_stays_in_the_runs_copy(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    assert Recipe.load(path).recipe.sandbox == "isolated"
    loaded = Recipe.load(path, ["sandbox=unsafe"])
    assert loaded.recipe.sandbox == "unsafe"
    assert "sandbox: unsafe" in loaded.dump()
    with pytest.raises(RecipeError, match="sandbox"):
        Recipe.load(path, ["sandbox=none"])


def test_it_is_a_key_of_an_evaluation() -> None:
    given = {"model": "some/model", "bench": ("humaneval",)}
    assert settle(given, []).sandbox == "isolated"
    assert settle(given, ["sandbox=unsafe"]).sandbox == "unsafe"


@pytest.mark.parametrize(("problem", "words"), [("no namespaces", "WITHOUT ISOLATION"), ("", "is not needed here")])
def test_it_is_said_aloud(monkeypatch: pytest.MonkeyPatch, problem: str, words: str) -> None:
    monkeypatch.setattr(sandbox_choice, "isolation_problem", lambda: problem)
    said: list[str] = []
    sandbox_choice.put_in_force("isolated", said.append)
    assert said == []
    assert os.environ["RLPOST_SANDBOX"] == ""
    sandbox_choice.put_in_force("unsafe", said.append)
    assert len(said) == 1
    assert words in said[0]
    assert problem in said[0]
    assert os.environ["RLPOST_SANDBOX"] == "unsafe"


def test_the_result_says_so(tmp_path: Path) -> None:
    for sandbox in ("isolated", "unsafe"):
        write_result(tmp_path, ResultRecord(3, 1.0, 0, {}, sandbox=sandbox))
        found = read_result(tmp_path)
        assert found is not None
        assert found.sandbox == sandbox
        assert ("sandbox" in (tmp_path / "result.json").read_text()) is (sandbox == "unsafe")
