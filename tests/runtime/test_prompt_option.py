"""``env.options.prompt`` names a file beside the recipe; its text travels, and stands in the run's own copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlpost.recipe import Recipe, RecipeError

RECIPE = """
model: {path: some/model}
env: {name: "rlpost.envs.appworld:AppWorld", options: {prompt: mine.jinja, reminder: true}}
"""


def test_the_file_is_read_where_the_recipe_lies_and_its_text_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("Do this:\n{{ instruction }}\n")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    loaded = Recipe.load(path)
    assert loaded.env_options == {"prompt": "Do this:\n{{ instruction }}\n", "reminder": True}
    copy = tmp_path / "elsewhere" / "recipe.yaml"
    copy.parent.mkdir()
    copy.write_text(loaded.dump())
    assert Recipe.load(copy).env_options == loaded.env_options


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    with pytest.raises(RecipeError, match=r"recipe\.yaml:3, key env\.options\.prompt: there is no file .*mine\.jinja"):
        Recipe.load(path)
