"""Names, a user's own class from a file, and options that are refused in words."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from rlpost.algorithms.base import AlgorithmError
from rlpost.algorithms.registry import ALGORITHMS, build, locate
from rlpost.reward.plugins import PluginError

MINE = """
from pydantic import BaseModel
from rlpost.algorithms.base import Algorithm, LossOutput


class MyConfig(BaseModel, extra="forbid"):
    strength: float = 1.0


class Mine(Algorithm):
    Config = MyConfig

    def advantages(self, groups):
        return [self.config.strength * (group.rewards - group.rewards.mean()) for group in groups]

    def loss(self, views, constants):
        return LossOutput(-(views.advantages * views.logprobs)[views.mask].sum() / constants.tokens)


class Plain(Algorithm):
    pass


class Other:
    pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_algo.py").write_text(MINE)
    return tmp_path


REQUIRED = {"scalebio": {"sources": ["a.jsonl", "b.jsonl"], "validation": "v.jsonl"}}
"""Options without defaults."""


@pytest.mark.parametrize("name", sorted(ALGORITHMS.names))
def test_every_short_name_builds_with_its_defaults(name: str) -> None:
    algorithm = build(locate(name), REQUIRED.get(name, {}))
    assert len(type(algorithm).Config.model_fields) <= 12
    assert all(field.description for field in type(algorithm).Config.model_fields.values())


def test_gspo_is_a_preset_of_grpo() -> None:
    options = build(locate("gspo"), {}).config.model_dump()
    base = build(locate("grpo"), {}).config.model_dump()
    assert {key for key in options if options[key] != base[key]} == {"ratio", "clip", "clip_high"}


def test_a_class_of_ones_own_in_a_file(folder: Path) -> None:
    algorithm = build(locate("my_algo.py:Mine", folder), {"strength": 3})
    assert algorithm.config.strength == 3.0
    plain = build(locate("my_algo.py:Plain", folder), {})
    assert plain.select_samples([1.0, 2.0], [0, 0], 0.5, 0).tolist() == [0, 1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "options", "key", "words"),
    [
        ("loop", {"clp": 0.1}, "clp", "algorithm.clp: unknown key; did you mean 'clip'?"),
        ("loop", {"zzz": 1}, "zzz", "algorithm.zzz: unknown key; known: advantage, aggregate"),
        (
            "grpo",
            {"advantage": {"st": "none"}},
            "advantage.st",
            "algorithm.advantage.st: unknown key; did you mean 'std'",
        ),
        (
            "grpo",
            {"advantage": {"overlong": {"max_tokens": 9, "buffer": 3, "penaltee": 1}}},
            "advantage.overlong.penaltee",
            "did you mean 'penalty'?",
        ),
        (
            "grpo",
            {"advantage": {"overlong": {"max_tokens": 9, "buffer": 10}}},
            "advantage.overlong",
            "larger than max_tokens",
        ),
        ("grpo", {"advantage": {"overlong": {"max_tokens": 9}}}, "advantage.overlong.buffer", "required and missing"),
        ("grpo", {"advantage": {"refill": -1}}, "advantage.refill", "greater than or equal to 0"),
        ("loop", {"clip": 1.5}, "clip", r"algorithm.clip: .*less than 1 \(given: 1.5\)"),
        ("loop", {"clip": None, "clip_high": 0.3}, None, "clip_high needs clip"),
        ("loop", {"epochs": 0}, "epochs", "algorithm.epochs: .*greater than or equal to 1"),
        ("loop", {"minibatches": 0}, "minibatches", "algorithm.minibatches"),
        ("loop", {"ratio": "sequence"}, "ratio", "'token', 'turn', 'trajectory' or 'gspo'"),
        ("loop", {"aggregate": "mean"}, "aggregate", "'sequence', 'token' or 'constant'"),
        ("loop", {"kl": float("nan")}, "kl", "finite"),
        ("loop", {"entropy": -0.1}, "entropy", "algorithm.entropy"),
        ("loop", {"min_abs_advantage": -1}, "min_abs_advantage", "algorithm.min_abs_advantage"),
        ("loop", {"early_kl_stop": 0}, "early_kl_stop", "algorithm.early_kl_stop"),
        ("rloo", {"epochs": 2}, "epochs", "algorithm.epochs: Input should be 1"),
        ("rloo", {"minibatches": 2}, "minibatches", "algorithm.minibatches: Input should be 1"),
        ("loop", {"select": {}}, "select", "the key 'name' is required; known: d3s"),
        ("loop", {"select": "d3s"}, "select", "valid dictionary"),
        ("loop", {"select": {"name": "d3"}}, "select.name", "did you mean 'd3s'?"),
        ("loop", {"select": {"name": "mine.py:Sel"}}, "select.name", "no file mine.py"),
        ("loop", {"select": {"name": "nowhere:Sel"}}, "select.name", "cannot import nowhere"),
        (
            "loop",
            {"select": {"name": "rlpost.algorithms.loop:Loop"}},
            "select.name",
            "not a class derived from .*Selector",
        ),
        ("loop", {"select": {"name": "rlpost.algorithms.selection:Selector", "x": 1}}, "select", "takes no options"),
        (
            "loop",
            {"select": {"name": "d3s", "sample": 50}},
            "select.sample",
            "algorithm.select.sample: unknown key; did you mean 'samples'?",
        ),
        ("loop", {"select": {"name": "d3s", "samples": [40, 101]}}, "select.samples", "less than or equal to 100"),
        ("loop", {"select": {"name": "d3s", "samples": [40, 50, 60]}}, "select.samples", "algorithm.select.samples"),
        ("loop", {"select": {"name": "d3s", "tokens": 0}}, "select.tokens", "greater than 0"),
        ("loop", {"select": {"name": "d3s", "tokens": "many"}}, "select.tokens", "algorithm.select.tokens"),
        ("loop", {"select": {"name": "d3s", "scope": "both"}}, "select.scope", "'batch' or 'group'"),
        ("loop", {"select": {"name": "d3s", "renormalize": True}}, "select", "needs scope group"),
    ],
)
def test_wrong_options_are_refused_in_words(name: str, options: dict, key: str | None, words: str) -> None:
    with pytest.raises(AlgorithmError, match=words) as caught:
        build(locate(name), options)
    assert caught.value.key == key


def test_every_wrong_option_has_its_line() -> None:
    with pytest.raises(AlgorithmError) as caught:
        build(locate("loop"), {"clip": 2, "epocs": 1})
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [("lop", "did you mean 'loop'"), ("???", "known: .*grpo, gspo, loop, .*rloo")],
)
def test_an_unknown_name(name: str, words: str) -> None:
    with pytest.raises(PluginError, match=words):
        locate(name)


def test_what_is_no_algorithm(folder: Path) -> None:
    with pytest.raises(PluginError, match="not a class derived from"):
        build(locate("my_algo.py:Other", folder), {})
    with pytest.raises(AlgorithmError, match="Plain takes no options, but was given strength"):
        build(locate("my_algo.py:Plain", folder), {"strength": 1})
    with pytest.raises(PluginError, match="no file"):
        locate("nowhere.py:Mine", folder)


def test_an_error_crosses_processes_whole() -> None:
    error = pickle.loads(pickle.dumps(AlgorithmError("words", key="select.samples")))
    assert (str(error), error.key) == ("algorithm.select.samples: words", "select.samples")
