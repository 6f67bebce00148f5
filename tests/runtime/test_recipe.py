"""A recipe is refused in words, with key and line, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlpost.envs.base import EnvError, Task
from rlpost.placement import place
from rlpost.recipe import LoadedRecipe, Recipe, RecipeError
from rlpost.reward.validation import known_keys
from rlpost.tasks import load_tasks

GOOD = """\
model:
  build: {hidden: 32, layers: 1, heads: 2, intermediate: 32}
env:
  name: rlpost.envs.payments:Payments
algorithm:
  name: loop
  minibatches: 2
batch:
  tasks: 4
  group_size: 4
rollout:
  max_turns: 3
  max_new_tokens: 8
  max_context: 128
"""


def load(folder: Path, text: str, *overrides: str) -> LoadedRecipe:
    """Write and load a recipe."""
    path = folder / "mine.yaml"
    path.write_text(text)
    return Recipe.load(path, list(overrides))


def refusal(folder: Path, text: str, *overrides: str) -> str:
    """The message a wrong recipe is refused with."""
    with pytest.raises(RecipeError) as caught:
        load(folder, text, *overrides)
    return str(caught.value)


def test_a_good_recipe_loads_and_its_dump_loads_to_the_same(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    assert loaded.recipe.rollouts_per_step == 16
    again = load(tmp_path, loaded.dump())
    assert again.recipe.model_dump() | {"algorithm": 0} == loaded.recipe.model_dump() | {"algorithm": 0}
    assert again.dump() == loaded.dump()


def test_unknown_key_names_the_nearest_and_the_line(tmp_path: Path) -> None:
    message = refusal(tmp_path, GOOD.replace("group_size", "groupsize"))
    assert message == "mine.yaml:10, key batch.groupsize: unknown key; did you mean 'group_size'?"


def test_unknown_key_on_the_wrong_level_finds_its_home(tmp_path: Path) -> None:
    message = refusal(tmp_path, GOOD + "temperature: 0.7\n")
    assert message == "mine.yaml:15, key temperature: unknown key; did you mean 'rollout.temperature'?"


def test_unknown_algorithm_key_names_the_nearest_and_the_line(tmp_path: Path) -> None:
    message = refusal(tmp_path, GOOD.replace("minibatches", "minibatchs"))
    assert message.startswith("mine.yaml:7, key algorithm.minibatchs")
    assert "minibatches" in message


def test_wrong_type_shows_what_was_given(tmp_path: Path) -> None:
    message = refusal(tmp_path, GOOD.replace("tasks: 4", "tasks: many"))
    assert message.startswith("mine.yaml:9, key batch.tasks: ")
    assert "'many'" in message


def test_override_wins_and_is_checked_too(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD, "batch.tasks=7", "steps=3").recipe.batch.tasks == 7
    assert "key batch.tsks" in refusal(tmp_path, GOOD, "batch.tsks=7")
    assert "dotted.key=value" in refusal(tmp_path, GOOD, "batch.tasks")


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    assert "stands twice (first at line 9)" in refusal(tmp_path, GOOD.replace("tasks: 4", "tasks: 4\n  tasks: 5"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("algorithm.minibatches=17", "17 mini-batches need at least that many rollouts"),
        ("rollout.max_context=8", "leaves no room for a prompt"),
        ("rollout.top_p=0.9", "top-p, top-k"),
        ("env.name=rlpost.envs.payments", "module:Name"),
        ("env.name=rlpost.envs.payments:Nothing", "has no 'Nothing'"),
        ("env.name=nowhere.py:Env", "no file nowhere.py"),
        ("algorithm.name=lop", "loop"),
        ("lag=-1", "greater than or equal to 0"),
        ("algorithm={name: grpo, kl: 0.1}", "LoRA-free base"),
        ("algorithm={name: grpo, select: {name: d3s, samples: 120}}", "key algorithm.select.samples: "),
        ("algorithm={name: grpo, select: {name: d3s, tokens: 0}}", "key algorithm.select.tokens: "),
        ("algorithm={name: grpo, select: {name: d3s, samples: [90, 3]}}", "3 % of a step's 16 trajectories"),
        ("algorithm={name: grpo, select: {name: d3s, samples: 10, scope: group}}", "10 % of a group's 4 trajectories"),
    ],
)
def test_what_cannot_run_is_refused(tmp_path: Path, override: str, words: str) -> None:
    assert words in refusal(tmp_path, GOOD, override)


def test_contradictions_between_sections(tmp_path: Path) -> None:
    assert "needs lag: 0" in refusal(tmp_path, GOOD, "lag=1", "deterministic=true")
    assert "engine.sleep: true needs lag: 0" in refusal(tmp_path, GOOD, "lag=1", "engine.sleep=true")
    assert "timing" in refusal(tmp_path, GOOD, "deterministic=true", "batch.straggler={fraction: 0.5}")
    assert "exactly one of path" in refusal(tmp_path, GOOD, "model.path=somewhere")


def test_no_file_and_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        Recipe.load(tmp_path / "none.yaml")
    assert "not valid YAML" in refusal(tmp_path, "a: [1, 2")
    assert "must be a mapping" in refusal(tmp_path, "- 1\n- 2\n")


def test_few_keys() -> None:
    keys = known_keys(Recipe)
    assert len(keys) < 80, keys


def test_a_split_is_named_with_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def rows(source: str, split: str) -> list[Task]:
        asked.append((source, split))
        return [Task(f"{source}-{split}", {"split": split})]

    monkeypatch.setattr("rlpost.tasks.load_file", rows)
    load_tasks(load(tmp_path, GOOD, "data={train: 'some/set:main', eval: 'some/set@validation'}"))
    assert asked == [("some/set:main", "train"), ("some/set", "validation")]


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ("[]", r"env.name \(.*worlds.py:Mine.tasks\('train'\)\) gives no tasks"),
        ("[Task('a', {})]", "also training tasks"),
    ],
)
def test_tasks_that_cannot_serve_are_refused(tmp_path: Path, tasks: str, words: str) -> None:
    (tmp_path / "worlds.py").write_text(
        "from rlpost.envs.base import Env, Task\n\n\nclass Mine(Env):\n    @classmethod\n"
        f"    def tasks(cls, split, seed):\n        return {tasks}\n"
    )
    with pytest.raises(EnvError, match=words):
        load_tasks(load(tmp_path, GOOD, "env.name=worlds.py:Mine"))


def test_a_head_size_without_a_kernel_is_refused(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD, "model={build: {hidden: 96, heads: 6}}", "learner.device=cpu")
    with pytest.raises(RecipeError, match=r"model.build: .* = 16; on a CPU vLLM has kernels for 32, 64"):
        place(loaded.recipe, nodes=[0])
