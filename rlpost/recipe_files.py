"""The recipes that come with rlpost, by name: ``rlpost train quickstart`` works in any folder.

Left out: reading a recipe (recipe_source.py).
"""

from __future__ import annotations

import difflib
from pathlib import Path

from rlpost.recipe_source import RecipeError

FOLDER = Path(__file__).parent / "recipes"


def find_recipe(named: str | Path) -> Path:
    """The file a recipe argument means: a path as it stands, else the recipe of that name that comes with rlpost.

    Raises:
        RecipeError: neither a file nor a name; the message has the nearest name.
    """
    path = Path(named)
    if path.exists() or path.name != str(named) or path.suffix in (".yaml", ".yml"):
        return path
    own = FOLDER / f"{named}.yaml"
    if own.is_file():
        return own
    near = difflib.get_close_matches(str(named), [one.stem for one in own_recipes()], n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise RecipeError(f"there is no file '{named}' here and no recipe of that name; {hint}`rlpost recipes` lists them")


def own_recipes() -> list[Path]:
    """All recipes that come with rlpost."""
    return sorted(FOLDER.glob("*.yaml"))


def summary(recipe: Path) -> str:
    """A recipe's first comment line."""
    return recipe.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
