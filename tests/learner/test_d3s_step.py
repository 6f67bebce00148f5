"""D3S in whole learning steps: the base bit for bit, the schedule's ends, what is never computed, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rlpost.algorithms import registry
from rlpost.algorithms.base import Algorithm, AlgorithmError, PackedViews
from rlpost.learner.config import OptimizerConfig
from rlpost.learner.learner import Learner
from tests.learner.helpers import batch, setup, weights_of


def algorithm(name: str = "grpo", minibatches: int = 2, **select: object) -> Algorithm:
    options = {"minibatches": minibatches, "epochs": 1}
    return registry.build(registry.locate(name), options | ({"select": {"name": "d3s"} | select} if select else {}))


def learner(folder: Path, chosen: Algorithm, **config: object) -> Learner:
    return Learner(setup(folder, optimizer=OptimizerConfig(lr=1e-2), **config), algorithm=chosen)


@pytest.mark.parametrize("name", ["grpo", "gspo", "loop", "rloo"])
@pytest.mark.parametrize("scope", ["batch", "group"])
def test_everything_kept_is_the_base_bit_for_bit_over_a_run(name: str, scope: str, model_folder: Path) -> None:
    minibatches = 1 if name == "rloo" else 2
    ends = []
    for select in ({}, {"samples": 100, "tokens": 100, "scope": scope}):
        one = learner(model_folder, algorithm(name, minibatches, **select))
        metrics = [one.learn(batch(8, seed=step, step=step, steps_total=3)).metrics for step in range(3)]
        ends.append((weights_of(one), [{k: v for k, v in row.items() if k[:5] != "time/"} for row in metrics]))
        one.close()
    assert ends[0][1] == ends[1][1]
    assert all(np.array_equal(weight, ends[1][0][name]) for name, weight in ends[0][0].items())


def test_the_schedule_at_the_first_and_the_last_step(model_folder: Path) -> None:
    one = learner(model_folder, algorithm(samples=[25, 75], tokens=[20, 100]))
    for step, samples, share in ((0, 4, 0.2), (5, 8, 0.6), (10, 12, 1.0)):
        found = one.learn(batch(16, seed=step, step=step, steps_total=11))
        assert found.metrics["samples/kept"] == samples == len(found.kept)
        policy = sum(batch(16, seed=step).trajectories[i].policy_tokens for i in found.kept)
        assert found.metrics["tokens/learned"] == int(np.ceil(share * policy - 1e-9))
    one.close()


def test_dropped_samples_are_never_packed_and_never_forwarded(model_folder: Path) -> None:
    one = learner(model_folder, algorithm(samples=25, tokens=50))
    seen: list[int] = []
    one.policy.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].numel()))
    step = batch(16)
    found = one.learn(step)
    lengths = [int(np.flatnonzero(step.trajectories[i].policy_mask)[-1]) for i in found.kept]
    assert len(found.kept) == 4
    assert found.metrics["tokens/packed"] == sum(lengths)
    assert sum(seen) == 2 * sum(lengths)  # a scoring pass, and one update a sequence
    assert found.metrics["tokens/learned"] < found.metrics["tokens/packed"]
    one.close()


def test_a_row_says_what_selection_did(model_folder: Path) -> None:
    one = learner(model_folder, algorithm(samples=50, tokens=100))
    step = batch(8)
    step.advantages[:] = [2.0, -1.0, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0]
    found = one.learn(step)
    assert found.kept.tolist()[:2] == [0, 1]
    assert found.metrics["select/samples"] == 8
    assert found.metrics["select/kept"] == 4
    assert found.metrics["select/zero_variance_groups"] == 0.5
    # by hand: mean of all 1.1 / 8, of the square 5.01 / 8; the best four are 2, -1 and two zeros or a zero and 0.1
    assert found.metrics["select/variance_before"] == pytest.approx(5.01 / 8 - (1.1 / 8) ** 2)
    assert found.metrics["select/variance_after"] == pytest.approx(step.advantages[found.kept].var())
    assert found.metrics["select/variance_after"] >= 5 / 4 - (1 / 4) ** 2
    assert found.metrics["grad_norm"] > 0
    # half of the sequences: each of those left weighs twice as much
    assert found.metrics["selection_gain"] == pytest.approx(2.0)
    # tokens with an advantage of 0 move nothing
    moving = [i for i in found.kept if step.advantages[i]]
    assert found.metrics["tokens/learned"] == sum(step.trajectories[i].policy_tokens for i in moving)
    one.close()


def test_seconds_saved_are_those_of_the_dropped_tokens(model_folder: Path) -> None:
    # with two updates the base scores too: what is saved is the token-proportional part, once for each dropped token
    one = learner(model_folder, algorithm(samples=50, tokens=100))
    step = batch(16)
    result = one.learn(step)
    found = result.metrics

    def computed(chosen: list[int]) -> int:
        """What follows the prompt, of each; the prompt, once a group."""
        ends = [int(np.flatnonzero(step.trajectories[i].policy_mask)[-1]) for i in chosen]
        prompts = [step.trajectories[i].turns[0].start for i in chosen]
        groups = {int(step.group_ids[i]): prompt for i, prompt in reversed(list(zip(chosen, prompts, strict=True)))}
        return sum(ends) - sum(prompts) + sum(groups.values())

    spent = found["time/old_s"] + found["time/update_s"] - found["time/optimizer_s"]
    ratio = computed(list(range(16))) / computed(result.kept.tolist())
    assert found["time/saved_s"] == pytest.approx(spent * (ratio - 1))
    assert found["time/saved_s"] > 0
    assert 0 < found["time/optimizer_s"] < found["time/update_s"]
    # with one update the base needs no scoring pass: a selection of tokens alone costs one and saves nothing
    alone = Learner(setup(model_folder), algorithm=algorithm(minibatches=1, samples=100, tokens=50))
    lost = alone.learn(step).metrics
    assert lost["time/saved_s"] == pytest.approx(-lost["time/old_s"])
    one.close()
    alone.close()


class Watched:
    """Keeps the mask of every view a loss is given."""

    def __init__(self, chosen: Algorithm) -> None:
        self.masks: list[torch.Tensor] = []
        loss = chosen.loss

        def watched(views: PackedViews, constants: object) -> object:
            self.masks.append(views.mask.clone())
            return loss(views, constants)  # type: ignore[arg-type]

        chosen.loss = watched  # type: ignore[method-assign, assignment]


def test_tokens_are_ranked_by_entropy_at_the_sampling_temperature(model_folder: Path) -> None:
    temperature = 3.0
    chosen = algorithm(minibatches=1, samples=100, tokens=30)
    seen = Watched(chosen)
    one = learner(model_folder, chosen)
    step = batch(1, advantages=np.ones(1), temperature=temperature)
    (only,) = step.trajectories
    with torch.no_grad():
        ids = torch.from_numpy(only.token_ids).long()[None]
        reference = Learner(setup(model_folder), algorithm=algorithm()).policy.model
        reference.set_attn_implementation("eager")
        logits = reference(ids, use_cache=False).logits[0, :-1].double()
    policy = torch.from_numpy(only.policy_mask[1:])

    def ranked(t: float) -> set[int]:
        logs = torch.log_softmax(logits / t, -1)
        entropies = torch.where(policy, -(logs.exp() * logs).sum(-1), -1.0)
        count = int(np.ceil(0.3 * int(policy.sum()) - 1e-9))
        return set(entropies.topk(count).indices.tolist())

    one.learn(step)
    assert set(seen.masks[0].nonzero().squeeze(1).tolist()) == ranked(temperature)
    assert ranked(temperature) != ranked(1.0)  # the test can tell
    one.close()


def test_entropies_that_are_not_numbers_are_refused_and_the_weights_stay(model_folder: Path) -> None:
    one = learner(model_folder, algorithm(samples=50, tokens=50))
    with torch.no_grad():
        one.policy.model.get_output_embeddings().weight[:, 0] = torch.nan
    before = weights_of(one)
    with pytest.raises(AlgorithmError, match=r"policy tokens have an entropy or advantage that is not finite"):
        one.learn(batch(8))
    assert all(np.array_equal(before[name], weight, equal_nan=True) for name, weight in weights_of(one).items())
    one.close()


@pytest.mark.parametrize("scope", ["batch", "group"])
def test_rewards_all_equal_skip_the_step_and_say_so(scope: str, model_folder: Path) -> None:
    one = learner(model_folder, algorithm(samples=50, tokens=50, scope=scope))
    before = weights_of(one)
    found = one.learn(replace(batch(8), advantages=np.zeros(8)))
    assert found.skipped
    assert found.metrics["skipped"] == 1.0
    assert found.metrics["select/zero_variance_groups"] == 1.0
    assert found.metrics["tokens/packed"] == found.metrics["time/update_s"] == 0.0
    assert found.note == "none of 8 trajectories was worth learning from; the weights did not change"
    assert all(np.array_equal(before[name], weight) for name, weight in weights_of(one).items())
    one.close()
