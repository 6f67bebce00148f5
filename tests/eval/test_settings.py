"""What the command line comes to: defaults, overrides, and what a run's recipe tells."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from rlpost.eval.benchmark import EvalError
from rlpost.eval.command import settings_of_options
from rlpost.eval.plan import make_plan, settings_of
from rlpost.eval.run import _gpus, model_of
from rlpost.eval.settings import EvalSettings, settle
from rlpost.rollout.chat import PlainFormat, TemplateFormat

GIVEN = {"model": "m", "n": None, "temperature": None}


def test_defaults() -> None:
    one = settings_of_options(GIVEN, "gsm8k, math500", None, [], None, [])
    assert (one.bench, one.n, one.k, one.temperature, one.prompts) == (("gsm8k", "math500"), 1, (1,), 0.0, "chat")
    assert (one.engine.slots, one.engine.gpu_memory_utilization, one.rollout.workers) == (256, 0.85, 1)
    many = settings_of_options({**GIVEN, "n": 32}, "gsm8k", None, [], None, [])
    assert (many.k, many.temperature) == ((1, 32), 1.0)


def test_options_and_overrides() -> None:
    told = ["engine.slots=512", "rollout.gpus=0.5", "cluster.deadline_s=30", "deterministic=true", "env_options.a.b=3"]
    found = settings_of_options({**GIVEN, "n": 8}, "gsm8k", "8,1,4", ["gsm8k=x.jsonl", "gsm8k.shots=y=z"], 3, told)
    assert found.k == (1, 4, 8)
    assert found.data == {"gsm8k": "x.jsonl", "gsm8k.shots": "y=z"}
    assert (found.engine.slots, found.rollout.gpus, found.rollout.workers, found.cluster.deadline_s) == (
        512,
        0.5,
        3,
        30,
    )
    assert (found.deterministic, found.env_options) == (True, {"a": {"b": 3}})


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path) -> Path:
    """A run of the quickstart's world with two checkpoints."""
    folder = tmp_path / "run"
    for step in (4, 12):
        checkpoint = folder / "checkpoints" / f"step-{step}"
        shutil.copytree(tiny_model, checkpoint)
        (checkpoint / "trainer_state.pt").touch()
    recipe = {
        "model": {"path": "x", "trust_remote_code": True},
        "env": {"name": "rlpost.envs.payments:Payments", "options": {"expert_share": 0.5}},
        "rollout": {"chat": "plain", "separator": "|", "max_turns": 3, "max_new_tokens": 6, "max_context": 100},
        "engine": {"gpu_memory_utilization": 0.2},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def test_a_run_says_how_its_model_talks(run: Path) -> None:
    settings = settle({"model": str(run), "bench": ("payments",), "limit": 2}, [])
    assert (settings.prompts, settings.trust_remote_code, settings.env_options) == ("base", True, {"expert_share": 0.5})
    assert settings.engine.gpu_memory_utilization == 0.85  # no learner is there to share with
    model, _ = model_of(settings, run / "out", exact=True)
    assert model == run / "checkpoints" / "step-12"
    wanted, _ = settings_of(make_plan(settings), model)
    config = wanted["payments"].config
    assert (config.chat, config.separator, config.max_turns, config.max_context) == ("plain", "|", 3, 100)
    assert config.max_new_tokens == 6
    other = settle({"model": str(run), "bench": ("gsm8k",)}, [])
    assert other.env_options == {}  # those are another environment's


def test_a_checkpoint_is_a_model(run: Path) -> None:
    settings = settle({"model": str(run / "checkpoints" / "step-4"), "bench": ("payments",)}, [])
    assert settings.prompts == "base"
    assert model_of(settings, run / "out", exact=True) == (run / "checkpoints" / "step-4", None)


def test_the_context_is_what_prompts_and_answers_take(tiny_model: Path, sums: Path) -> None:
    for prompts, kind in (("chat", TemplateFormat), ("base", PlainFormat)):
        given = {"model": str(tiny_model), "bench": (str(sums),), "max_new_tokens": 10, "prompts": prompts}
        plan = make_plan(settle(given, []))
        wanted, chat = settings_of(plan, tiny_model)
        assert isinstance(chat, kind)
        longest = max(len(chat.opening(task.data["messages"])) for task in plan.tasks["sums"])
        assert wanted["sums"].config.max_context == longest + 10
        assert wanted["sums"].logprobs is False


def test_workers_share_the_gpus_that_are_there() -> None:
    def asked(**rollout: float) -> EvalSettings:
        return EvalSettings.model_validate({"model": "m", "bench": ("gsm8k",), "rollout": rollout})

    assert _gpus(asked(workers=5), 0) == 0.0
    assert _gpus(asked(workers=2), 2) == 1.0
    assert _gpus(asked(workers=2, gpus=0.5), 1) == 0.5
    with pytest.raises(EvalError, match="3 workers of 1 GPUs each and this machine has 2; lower --workers"):
        _gpus(asked(workers=3), 2)
