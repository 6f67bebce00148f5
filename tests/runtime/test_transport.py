"""A weight transport that only a file outside the package knows, through a whole run: vLLM, Ray and all.

The fast tier has it between a learner and an engine in one process (tests/rollout/test_diffusion_engine.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rlpost.explain import explain
from rlpost.recipe import LoadedRecipe, RecipeError
from rlpost.runfolder import RunFolder

from .conftest import rows
from .test_faults import ENVS

OWN = "sync.transport=tests.support.by_files:ByFiles"


@pytest.mark.slow
def test_a_transport_of_ones_own_carries_every_publication(
    small_recipe: Callable[..., LoadedRecipe], run: Callable[..., RunFolder], tmp_path: Path
) -> None:
    (tmp_path / "worlds.py").write_text(ENVS)
    loaded = small_recipe(OWN, "env.name=worlds.py:Base", "steps=1", "learner.optimizer.lr=1e-2")
    assert ("weights", "by files") in explain(loaded)[-1].rows
    (row,) = rows(run(loaded))
    assert row["updates"] > 0
    assert row["gap/logprob_abs"] < 1e-4


def test_a_transport_that_is_none_is_refused_with_key_and_line(small_recipe: Callable[..., LoadedRecipe]) -> None:
    with pytest.raises(RecipeError, match=r"sync\.transport: .*there is no weight transport 'icp'; did you mean 'ipc'"):
        small_recipe("sync.transport=icp")
