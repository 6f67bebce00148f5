"""What a recipe names is found, built once and checked when it loads: nothing is left for a run to find out.

Left out: the recipe's own keys (test_recipe.py), and how code travels (test_own_code.py).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rlpost.algorithms.grpo import GRPO
from rlpost.recipe import Recipe
from rlpost.recipe_keys import RecipeKeys

from .test_recipe import GOOD, load, refusal


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "learner.optimizer.name=adamm",
            "learner.optimizer.name: there is no optimizer 'adamm'; did you mean 'adamw'",
        ),
        ("learner.optimizer.name=os:getcwd", "learner.optimizer.name: 'os:getcwd' is not a torch optimizer"),
        ("learner.optimizer={name: adamw, options: {betaz: 1}}", "learner.optimizer.options: 'adamw' does not take"),
        ("learner.optimizer={name: lisa, options: {layers: 0}}", "learner.optimizer"),
        ("learner.optimizer={name: adamw, options: {betas: 1}}", "learner.optimizer.options: 'adamw' does not take"),
        (
            "learner.lora={targets: [q_proj, v_porj]}",
            "learner.lora.targets: the model has no linear layer called",
        ),
        ("env.options={nope: 1}", "env.options.nope: Payments takes no such option; known: expert_share"),
        ("env.options={expert_shar: 1}", "env.options.expert_shar: Payments takes no such option; did you mean"),
        ("env.name=os:getcwd", "env.name: 'os:getcwd' is not a class derived from rlpost.envs.base.Env"),
        ("env.name=paymens", "env.name: there is no environment 'paymens'; did you mean 'payments'?"),
        ("env.name=nowhere.there:Env", "env.name: cannot import nowhere.there"),
        ("env={name: single_turn}", "env.options.reward: SingleTurn needs this option, and it is missing"),
        (
            "env={name: single_turn, options: {reward: maths}}",
            "env.options.reward: there is no reward function",
        ),
        (
            "env={name: countdown, options: {nubmers: 3}}",
            "env.options.nubmers: Countdown takes no option 'nubmers'",
        ),
        ("algorithm.name=lop", "algorithm.name: there is no algorithm 'lop'; did you mean 'loop'?"),
        ("algorithm={clip: 0.1}", "algorithm: the key 'name' is required"),
        (
            "algorithm={name: loop, select: {name: d3}}",
            "algorithm.select.name: there is no selector 'd3'",
        ),
        ("algorithm={name: loop, clip: 1.5}", "algorithm.clip: Input should be less than 1 (given: 1.5)"),
    ],
)
def test_what_it_names_is_checked_when_it_loads(tmp_path: Path, override: str, message: str) -> None:
    said = refusal(tmp_path, GOOD, override)
    assert f"key {message}" in said
    key = message.partition(":")[0]
    assert said.count(key) == 1, said  # and never twice


def test_each_of_several_has_its_line(tmp_path: Path) -> None:
    said = refusal(tmp_path, GOOD.replace("minibatches: 2", "clip: 2\n  epocs: 1"))
    assert said.splitlines() == [
        "mine.yaml:7, key algorithm.clip: Input should be less than 1 (given: 2)",
        "mine.yaml:8, key algorithm.epocs: unknown key; did you mean 'epochs'?",
    ]


@pytest.mark.parametrize(
    ("target", "wrong"),
    [("qkv_proj", ""), ("layers.0.qkv_proj", ""), ("q_proj", "called 'q_proj'")],
)
def test_targets_are_looked_up_in_a_folder_without_loading_it(tmp_path: Path, target: str, wrong: str) -> None:
    """Phi-3's layers hold queries, keys and values in one."""
    folder = tmp_path / "model"
    folder.mkdir()
    config = {"model_type": "phi3", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 32, "pad_token_id": 0}
    (folder / "config.json").write_text(json.dumps(config))
    names = ("model.layers.0.qkv_proj.weight", "model.layers.0.o_proj.weight", "model.norm.weight")
    save_file({name: torch.zeros(1) for name in names}, folder / "model.safetensors")
    overrides = (f"model={{path: {folder}}}", f"learner.lora={{targets: [{target}]}}")
    if not wrong:
        load(tmp_path, GOOD, *overrides)
    else:
        said = refusal(tmp_path, GOOD, *overrides)
        assert wrong in said
        assert "qkv_proj" in said


OWN = """
from pydantic import BaseModel
from rlpost.algorithms.base import Algorithm, Plan


class Inner(BaseModel):
    depth: int = 1


class Config(BaseModel):
    strength: float = 1.0
    inner: Inner = Inner()


class Open(BaseModel, extra="allow"):
    pass


class Mine(Algorithm):
    Config = Config


class Takes(Algorithm):
    Config = Open


class Misspelt(Algorithm):
    needs = frozenset({"old_logprob"})


class Text(Algorithm):
    needs = "old_logprobs"


class Pair(Algorithm):
    plan = (2, 2)


class Fixed(Algorithm):
    plan = Plan(2, 2)


class Kind(Algorithm):
    trainer = "polisy"
"""


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("Mine", "strenth: 2", "key algorithm.strenth: unknown key; did you mean 'strength'?"),
        ("Mine", "inner: {dept: 2}", "key algorithm.inner.dept: unknown key; did you mean 'depth'?"),
        ("Mine", "strength: 2", ""),
        ("Takes", "anything: 2", ""),
        ("Misspelt", "", "key algorithm: Misspelt.needs: there is no 'old_logprob'; did you mean 'old_logprobs'?"),
        ("Text", "", "Text.needs must be a set"),
        ("Pair", "", "Pair.plan must be a Plan, not (2, 2): write plan = Plan(epochs=2, minibatches=4)"),
        ("Fixed", "", ""),
        ("Kind", "", "Kind.trainer: there is no 'polisy'; did you mean 'policy'?"),
    ],
)
def test_an_algorithm_of_ones_own_keeps_the_contract(tmp_path: Path, name: str, options: str, words: str) -> None:
    (tmp_path / "own.py").write_text(OWN)
    override = f"algorithm={{name: 'own.py:{name}', {options}}}"
    if words:
        assert words in refusal(tmp_path, GOOD, override)
    else:
        assert type(load(tmp_path, GOOD, override).built).__name__ == name


def test_a_selector_and_an_optimizer_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from rlpost.algorithms.selection import Selector\nimport torch\n\n\nclass Mine(Selector):\n    pass\n\n\n"
        "class Opt(torch.optim.SGD):\n    pass\n"
    )
    named = ("algorithm={name: loop, select: {name: 'own.py:Mine'}}", "learner.optimizer.name=own.py:Opt")
    loaded = load(tmp_path, GOOD, *named)
    assert [package.folder for package in loaded.packages] == [str(tmp_path)]
    again = Recipe.load(tmp_path / "mine.yaml", list(named))
    assert again.dump() == loaded.dump()
    assert loaded.dump().count(f"{tmp_path}/own.py:") == 2


def test_the_algorithm_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    monkeypatch.setattr(GRPO, "__init__", lambda self, config: (built.append(1), super(GRPO, self).__init__(config))[1])
    loaded = load(tmp_path, GOOD, "algorithm={name: grpo}")
    assert loaded.has_rollouts
    assert loaded.built is loaded.built
    assert built == [1]


def test_checks_change_nothing(tmp_path: Path) -> None:
    diffusion = GOOD.replace("name: loop", "name: bgpo").replace("max_turns: 3", "max_turns: 1")
    loaded = load(tmp_path, diffusion.replace("max_new_tokens: 8", "max_new_tokens: 32"))
    assert loaded.recipe.diffusion is not None
    assert RecipeKeys.model_validate(loaded.recipe.model_dump()) is not None
