"""Recipes that no person means: each is refused when it is read, soon, with a short message, and nothing else happens.

Left out: mistakes that people make (test_recipe.py, test_recipe_code.py).
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rlpost.recipe import Recipe, RecipeError
from rlpost.reward.validation import known_keys

from .test_recipe import GOOD, load, refusal

BOMB = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [*a]\n", "an anchor (&name) that holds itself"),
        ("a: &a {b: *a}\n", "an anchor (&name) that holds itself"),
        ("&a : *a\n", "Keys should be strings"),
        (BOMB, "repeated too often"),
        (MERGED, "repeated too often"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested deeper than 30 levels"),
        ("a: " + "{b: " * 200 + "1" + "}" * 200, "nested deeper than 30 levels"),
        ("\n".join("  " * n + f"k{n}:" for n in range(3000)), "characters|nested deeper"),
        ("steps: " + "9" * 5000, "not valid YAML: Exceeds the limit"),
        ("steps: 2001-99-99", "not valid YAML: month must be in 1..12"),
        ("? [a, b]\n: 1\n", "a key is a single word"),
        ("a: \0\n", "not valid YAML"),
        ("a: !!python/object:os.system {}\n", "not valid YAML"),
        ("x" * 300_000, "has 300,000 characters"),
    ],
)
def test_a_text_that_is_no_recipe(tmp_path: Path, text: str, words: str) -> None:
    began = time.process_time()
    said = refusal(tmp_path, text)
    assert any(word in said for word in words.split("|")), said
    assert time.process_time() - began < 1
    assert len(said) < 600


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"steps: \xff\xfe\n")
    with pytest.raises(RecipeError, match=r"mine\.yaml is not UTF-8 text"):
        Recipe.load(tmp_path / "mine.yaml")


def test_an_anchor_used_twice_is_two_values(tmp_path: Path) -> None:
    text = GOOD.replace("model:\n", "model: &model\n") + "eval: &same {episodes: 3}\n"
    assert load(tmp_path, text, "eval.episodes=5").recipe.eval.episodes == 5


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.build.hidden=1.0e+30", "key model.build.hidden: 1e+30 is out of any range"),
        ("model.build.hidden=1e30", "key model.build.hidden: "),
        ("model.build.layers=1.0e+30", "key model.build.layers: 1e+30 is out of any range"),
        ("model.build.layers=1000000", "a model built from scratch has at most 1e+09 in its layers"),
        ("model.build.hidden=65536", "a model built from scratch has at most"),
        ("learner.optimizer.lr=.inf", "key learner.optimizer.lr: must be a finite number, not inf"),
        ("learner.optimizer.lr=inf", "key learner.optimizer.lr: Input should be a finite number"),
        ("learner.optimizer.options={eps: .nan}", "key learner.optimizer.options.eps: must be a finite number"),
        ("rollout.temperature=.inf", "key rollout.temperature: must be a finite number"),
        ("rollout.temperature=inf", "key rollout.temperature: Input should be a finite number"),
        ("rollout.deadline_s=.inf", "key rollout.deadline_s: must be a finite number"),
        ("cluster.deadline_s=Infinity", "key cluster.deadline_s: Input should be a finite number"),
        ("sync.gap_bound=inf", "key sync.gap_bound: Input should be a finite number"),
        (f"env.name={'x' * 100_000}", "key env.name: there is no environment 'xxx"),
        (f"learner.optimizer.lr={'x' * 100_000}", "key learner.optimizer.lr: Input should be a valid number"),
        ("algorithm={name: loop, clip: .inf}", "key algorithm.clip: must be a finite number"),
    ],
)
def test_numbers_without_end(tmp_path: Path, override: str, words: str) -> None:
    said = refusal(tmp_path, GOOD, override)
    assert words in said
    assert len(said) < 600


LONG = "x" * 20_000
STRANGE: dict[str, str] = {
    "long": LONG,
    "number": "1.0e+30",
    "negative": "-1",
    "infinite": ".inf",
    "list": "[]",
    "mapping": "{a: 1}",
    "null": "null",
    "digits": "9" * 400,
    "date": "2001-01-01",
    "module": f"{LONG}:{LONG}",
    "file": f"{LONG}.py:Mine",
}


@pytest.mark.parametrize("kind", STRANGE)
def test_any_key_may_hold_anything(tmp_path: Path, kind: str) -> None:
    """It loads, or is refused within a second, in a few lines; nothing else is raised."""
    load(tmp_path, GOOD, "learner.optimizer.options={eps: 1.0e-8}")  # what is imported is so once
    for key in [*known_keys(Recipe), "algorithm.name", "algorithm.clip", "algorithm.select", "algorithm", "env", LONG]:
        began, said = time.process_time(), ""
        try:
            load(tmp_path, GOOD, f"{key}={STRANGE[kind]}")
        except RecipeError as error:
            said = str(error)
        assert time.process_time() - began < 1, key
        assert len(said) < 1500, (key, said)


@pytest.mark.parametrize("content", [b"import sys\nsys.exit(3)\n", b"x = '\xff\xfe'\n", b"raise SystemExit\n"])
@pytest.mark.parametrize("key", ["env.name", "algorithm.name", "learner.optimizer.name"])
def test_code_that_ends_or_cannot_be_read(tmp_path: Path, key: str, content: bytes) -> None:
    (tmp_path / "mine.py").write_bytes(content)
    said = refusal(tmp_path, GOOD, f"{key}=mine.py:Mine")
    assert f"key {key}: cannot import {tmp_path}/mine.py" in said
