"""A learning step: the gradient does not depend on how the work is cut, and each shortcut is exact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlpost.algorithms import registry
from rlpost.algorithms.base import Algorithm, LossOutput, PackedViews, Plan, StepConstants
from rlpost.learner.batch import LearnerError
from rlpost.learner.config import OptimizerConfig
from rlpost.learner.learner import Learner
from rlpost.learner.rows import score_rows
from rlpost.learner.step import learn, minibatches
from rlpost.reward.plugins import Plugin
from tests.learner.helpers import Clipped, batch, double_updater, gradient, setup, weights_of


def algorithm(name: str, **options: object) -> Algorithm:
    return registry.build(registry.locate(name), options)


@pytest.mark.parametrize("name", ["loop", "grpo", "rloo", "gspo"])
def test_any_split_into_packs_gives_the_same_gradient(name: str, model_folder: Path) -> None:
    step = batch(8)
    options = {"minibatches": 1, "epochs": 1}
    whole = gradient(double_updater(model_folder, algorithm(name, **options)), step)
    assert whole.norm() > 0.1
    for budget in (60, 25, 2):  # several to a pack, one or two, each alone
        cut = gradient(double_updater(model_folder, algorithm(name, **options), budget), step)
        assert (cut - whole).norm() < 1e-12 * whole.norm()


@pytest.mark.parametrize("name", ["expert_iteration", "rft"])
def test_supervised_learning_on_successes_takes_several_updates_without_old_log_probs(
    name: str, model_folder: Path
) -> None:
    step = batch(8)
    step.advantages = np.array([1.0, 0, 0, 1, 1, 0, 0, 1])
    updater = double_updater(model_folder, algorithm(name, epochs=3, minibatches=2))
    result = learn(updater, step)
    assert result.kept.tolist() == [0, 3, 4, 7]
    assert (result.metrics["updates"], result.metrics["skipped"]) == (6.0, 0.0)
    assert all(old is None for old in result.old_logprobs)
    one = algorithm(name, epochs=1, minibatches=1)
    first = learn(double_updater(model_folder, one), step).metrics["loss"]
    again = learn(updater, step).metrics["loss"]
    assert again < first  # it was learned from


def test_the_packed_loss_is_the_one_of_separate_unpacked_sequences(model_folder: Path) -> None:
    step, updater = batch(5), double_updater(model_folder, Clipped())
    model = double_updater(model_folder, Clipped()).policy.model
    model.set_attn_implementation("sdpa")
    total, tokens = torch.zeros((), dtype=torch.float64), sum(int(one.policy_mask.sum()) for one in step.trajectories)
    for one, advantage in zip(step.trajectories, step.advantages.astype(np.float32), strict=True):
        ids = torch.from_numpy(one.token_ids).long()
        logs = torch.log_softmax(model(ids[None], use_cache=False).logits[0, :-1], -1)
        logprobs = logs.gather(1, ids[1:, None])[:, 0][torch.from_numpy(one.policy_mask[1:])]
        total = total - (torch.exp(logprobs - logprobs.detach()) * float(advantage)).sum() / tokens
    total.backward()
    expected = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    before = torch.cat([weight.detach().flatten().clone() for _, weight in updater.policy.trainable()])
    result = learn(updater, step)
    after = torch.cat([weight.detach().flatten() for _, weight in updater.policy.trainable()])
    assert result.metrics["loss"] == pytest.approx(total.item(), abs=1e-12)
    assert (before - after - expected).norm() < 1e-12 * expected.norm()
    assert result.metrics["grad_norm"] == pytest.approx(float(expected.norm()), rel=1e-10)


def test_tokens_of_the_environment_get_exactly_zero_gradient(model_folder: Path) -> None:
    seen = Clipped()
    updater = double_updater(model_folder, seen, max_tokens=40)
    learn(updater, batch(8))
    for views in seen.seen:
        assert views.logprobs.grad is not None
        assert (views.logprobs.grad[~views.mask] == 0).all()
        assert (views.logprobs.grad[views.mask] != 0).all()


class EveryPosition(Clipped):
    """Forgets the mask altogether."""

    def loss(self, views: PackedViews, constants: StepConstants) -> LossOutput:
        return LossOutput(-(views.logprobs * views.advantages).sum() / constants.tokens, {})


def test_even_a_loss_that_forgets_the_mask_learns_nothing_from_the_environment(model_folder: Path) -> None:
    step = batch(6)
    masked, forgetful = (gradient(double_updater(model_folder, one), step) for one in (Clipped(), EveryPosition()))
    assert (masked - forgetful).norm() < 1e-12 * masked.norm()


def test_views_hold_what_the_contract_says(model_folder: Path) -> None:
    seen = Clipped()
    step = batch(4)
    learn(double_updater(model_folder, seen), step)
    (views,), (constants,) = seen.seen, seen.constants
    order = sorted(range(4), key=lambda i: -int(np.flatnonzero(step.trajectories[i].policy_mask)[-1]))
    place = 0
    for number, index in enumerate(order):
        one = step.trajectories[index]
        length = int(np.flatnonzero(one.policy_mask)[-1])  # what follows the last policy token is never computed
        part = slice(place, place + length)
        mask = one.policy_mask[1 : length + 1]
        assert views.mask[part].tolist() == mask.tolist()
        assert (views.sequence[part] == number).all()
        np.testing.assert_array_equal(views.rollout_logprobs[part].numpy(), one.rollout_logprobs[1 : length + 1])
        np.testing.assert_allclose(views.advantages[part].numpy(), step.advantages[index], rtol=1e-6)
        turns = [
            next((t for t, turn in enumerate(one.turns) if turn.start <= n < turn.end), -1) for n in range(length + 1)
        ]
        assert views.turn[part].tolist() == turns[1:]
        assert views.sequence_tokens[number] == mask.sum()
        place += length
    assert place == len(views.logprobs)
    assert views.entropies is None
    assert constants == StepConstants(4, int(views.mask.sum()), 4, 64, int(views.mask.sum()))


def test_with_one_update_the_ratio_is_exactly_one_and_no_scoring_pass_runs(model_folder: Path) -> None:
    seen = Clipped()
    learner = Learner(setup(model_folder, max_tokens_per_pack=40), algorithm=seen)
    passes: list[bool] = []
    learner.policy.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    step = batch(8)
    expected = learner.score([one.token_ids.tolist() for one in step.trajectories])
    passes.clear()
    result = learner.learn(step)
    assert all(passes)
    assert len(passes) == len(seen.seen) > 1
    assert all(torch.equal(views.old_logprobs, views.logprobs.detach()) for views in seen.seen)
    assert result.metrics["kl_old"] == 0.0
    assert result.metrics["clip_fraction"] == 0.0
    for one, old, scores in zip(step.trajectories, result.old_logprobs, expected, strict=True):
        assert old is not None
        assert old.dtype == np.float32
        assert np.isnan(old[~one.policy_mask]).all()
        np.testing.assert_allclose(old[one.policy_mask], scores[one.policy_mask[1:]], atol=1e-5)
    learner.close()


def test_with_several_updates_the_first_ratio_is_one_within_rounding(model_folder: Path) -> None:
    seen = Clipped(Plan(epochs=2, minibatches=3))
    learner = Learner(setup(model_folder, optimizer=OptimizerConfig(lr=1e-2)), algorithm=seen)
    result = learner.learn(batch(9))
    assert result.metrics["updates"] == len(seen.seen) == 6
    ratios = [torch.exp(views.logprobs.detach() - views.old_logprobs) for views in seen.seen]
    assert (ratios[0] - 1).abs().max() < 1e-5
    assert (ratios[-1] - 1).abs().max() > 1e-2
    assert [constants.sequences for constants in seen.constants] == [3] * 6
    assert {constants.nominal_sequences for constants in seen.constants} == {3}
    learner.close()


def test_minibatches_are_equal_parts_reshuffled_every_epoch() -> None:
    parts = [part.tolist() for part in minibatches(10, Plan(epochs=2, minibatches=3), seed=4)]
    assert [len(part) for part in parts] == [4, 3, 3, 4, 3, 3]
    first, second = ([index for part in epoch for index in part] for epoch in (parts[:3], parts[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    again = [part.tolist() for part in minibatches(10, Plan(epochs=2, minibatches=3), seed=4)]
    assert again == parts
    assert len(list(minibatches(2, Plan(epochs=1, minibatches=5), seed=0))) == 2


def test_off_policy_weights_by_hand(model_folder: Path) -> None:
    seen = Clipped()
    learner = Learner(setup(model_folder), algorithm=seen)
    step = batch(6)
    scores = learner.score([one.token_ids.tolist() for one in step.trajectories])
    result = learner.learn(replace(step, lag=1, offpolicy_cap=1.5))
    old = np.concatenate([s[one.policy_mask[1:]] for one, s in zip(step.trajectories, scores, strict=True)])
    rollout = np.concatenate([one.rollout_logprobs[one.policy_mask] for one in step.trajectories])
    weight = np.exp(old.astype(np.float64) - rollout)
    assert result.metrics["offpolicy/ess"] == pytest.approx(
        weight.sum() ** 2 / (len(weight) * (weight**2).sum()), rel=1e-4
    )
    assert result.metrics["offpolicy/kl"] == pytest.approx(np.mean(weight - 1 - np.log(weight)), rel=1e-4)
    (views,) = seen.seen
    assert views.offpolicy_weight is not None
    np.testing.assert_allclose(
        np.sort(views.offpolicy_weight[views.mask].numpy()), np.sort(np.minimum(weight, 1.5)), rtol=1e-4
    )
    assert torch.equal(views.old_logprobs, views.logprobs.detach())  # still one update
    learner.close()


def test_every_update_of_a_step_has_the_weights_of_its_start(model_folder: Path) -> None:
    seen = Clipped(Plan(epochs=2))
    learner = Learner(setup(model_folder, optimizer=OptimizerConfig(lr=1e-2)), algorithm=seen)
    learner.learn(batch(6, lag=1, offpolicy_cap=1.5))
    first, second = seen.seen
    assert (first.logprobs - second.logprobs).abs().max() > 1e-2
    for views in (first, second):
        exact = torch.exp(views.old_logprobs - views.rollout_logprobs).clamp(max=1.5)
        assert views.offpolicy_weight is not None
        torch.testing.assert_close(views.offpolicy_weight[views.mask], exact[views.mask])
    torch.testing.assert_close(torch.sort(first.old_logprobs)[0], torch.sort(second.old_logprobs)[0], rtol=0, atol=1e-6)
    learner.close()


@pytest.mark.parametrize(("plan", "lag", "passes"), [((1, 1), 0, 0), ((1, 1), 1, 0), ((2, 1), 1, 1), ((1, 2), 0, 1)])
def test_one_update_needs_no_scoring_pass_at_any_lag(
    plan: tuple[int, int], lag: int, passes: int, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return score_rows(*arguments)

    monkeypatch.setattr("rlpost.learner.step.score_rows", counted)
    learner = Learner(setup(model_folder), algorithm=Clipped(Plan(*plan)))
    result = learner.learn(batch(6, lag=lag))
    assert len(calls) == passes
    assert result.metrics["offpolicy/ess"] > 0  # known either way
    learner.close()


def test_at_lag_0_there_is_no_off_policy_weight(model_folder: Path) -> None:
    seen = Clipped()
    learn(double_updater(model_folder, seen), batch(4))
    assert seen.seen[0].offpolicy_weight is None


@pytest.mark.parametrize("kind", ["zero", "rejected"])
def test_a_step_without_signal_changes_nothing_and_says_so(kind: str, model_folder: Path) -> None:
    chosen = Clipped() if kind == "zero" else algorithm("loop")
    learner = Learner(setup(model_folder, optimizer=OptimizerConfig(lr=1e-2)), algorithm=chosen)
    learner.learn(batch(8))  # the optimizer has momentum now
    before = weights_of(learner)
    step = batch(8, step=1)
    result = learner.learn(replace(step, advantages=step.advantages * (0.0 if kind == "zero" else 1e-4)))
    assert result.skipped
    assert result.metrics["skipped"] == 1.0
    assert result.metrics["updates"] == result.metrics["tokens/learned"] == result.metrics["samples/kept"] == 0.0
    assert "did not change" in result.note
    assert len(result.kept) == 0
    assert result.old_logprobs == [None] * 8
    assert all(np.array_equal(before[name], weight) for name, weight in weights_of(learner).items())
    assert learner.steps_done == 2
    learner.close()


def test_dropped_samples_are_neither_computed_nor_reported(model_folder: Path) -> None:
    learner = Learner(setup(model_folder), algorithm=algorithm("loop", epochs=1, minibatches=1))
    step = batch(8)
    step.advantages[:] = [1.0, 0.001, -0.5, 0.3, -0.009, 0.02, -2.0, 0.7]
    result = learner.learn(step)
    assert result.kept.tolist() == [0, 2, 3, 5, 6, 7]
    assert [index for index, old in enumerate(result.old_logprobs) if old is None] == [1, 4]
    assert result.metrics["samples/kept"] == 6
    assert result.metrics["tokens/learned"] == sum(step.trajectories[i].policy_tokens for i in result.kept)
    learner.close()


def test_a_trajectory_whose_only_token_is_its_first_is_dropped(model_folder: Path) -> None:
    learner = Learner(setup(model_folder), algorithm=Clipped())
    step = batch(4)
    step.trajectories[2].policy_mask[:] = False
    step.trajectories[2].policy_mask[0] = True
    assert learner.learn(step).kept.tolist() == [0, 1, 3]
    learner.close()


def test_token_selection_narrows_the_loss(model_folder: Path) -> None:
    chosen = algorithm("grpo", select={"name": "d3s", "samples": [100, 100], "tokens": [20, 20]})
    learner = Learner(setup(model_folder), algorithm=chosen)
    step = batch(8)
    result = learner.learn(step)
    tokens = sum(one.policy_tokens for one in step.trajectories)
    assert result.metrics["tokens/learned"] == pytest.approx(0.2 * tokens, abs=1)
    learner.close()


def test_rate_0_changes_nothing(model_folder: Path) -> None:
    config = OptimizerConfig(lr=0.0, weight_decay=0.1)
    learner = Learner(setup(model_folder, optimizer=config), algorithm=Clipped(Plan(2, 2)))
    before = weights_of(learner)
    result = learner.learn(batch(8))
    assert result.metrics["updates"] == 4
    assert all(np.array_equal(before[name], weight) for name, weight in weights_of(learner).items())
    learner.close()


class Stops(Clipped):
    def stop(self, metrics: object) -> bool:
        return len(self.seen) >= 2


def test_an_early_stop_ends_the_step(model_folder: Path) -> None:
    learner = Learner(setup(model_folder), algorithm=Stops(Plan(3, 2)))
    assert learner.learn(batch(8)).metrics["updates"] == 2
    learner.close()


class Broken(Clipped):
    def loss(self, views: PackedViews, constants: StepConstants) -> LossOutput:
        return LossOutput((views.logprobs * float("nan")).sum(), {})


def test_a_gradient_that_is_not_finite_ends_the_run_with_the_weights_intact(model_folder: Path) -> None:
    learner = Learner(setup(model_folder), algorithm=Broken())
    before = weights_of(learner)
    with pytest.raises(LearnerError, match="step 3: the gradient's norm is nan"):
        learner.learn(batch(4, step=3))
    assert all(np.array_equal(before[name], weight) for name, weight in weights_of(learner).items())
    learner.close()


def test_a_loss_sees_entropies_with_gradient_only_where_it_reads_them(model_folder: Path) -> None:
    step = batch(4)
    plain = gradient(double_updater(model_folder, algorithm("grpo", epochs=1, minibatches=1)), step)
    bonus = gradient(double_updater(model_folder, algorithm("grpo", epochs=1, minibatches=1, entropy=0.1)), step)
    assert (plain - bonus).norm() > 1e-3 * plain.norm()


def test_an_algorithm_of_ones_own_is_built_from_the_setup(model_folder: Path, tmp_path: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text(
        "from rlpost.algorithms.base import Algorithm, LossOutput\n"
        "class Mine(Algorithm):\n"
        "    def loss(self, views, constants):\n"
        "        return LossOutput(-(views.logprobs * views.advantages * views.mask).sum() / constants.tokens)\n"
    )
    learner = Learner(replace(setup(model_folder), algorithm=Plugin.locate(f"{code}:Mine")))
    assert learner.learn(batch(4)).metrics["updates"] == 1
    learner.close()
