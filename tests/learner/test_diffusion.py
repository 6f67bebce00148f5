"""Masked-diffusion models in the learner: exact log-probabilities, gradients that do not depend on how views are cut
into packs, memory that does not grow with n_t, and models that bring their own code.

Left out: the estimators themselves (tests/algorithms/test_bgpo.py).
"""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM

from rlpost.algorithms import registry
from rlpost.algorithms.base import Algorithm
from rlpost.algorithms.elbo import Elbo
from rlpost.learner.attention import NAME, PackedLayout
from rlpost.learner.batch import LearnerError, StepBatch
from rlpost.learner.config import BuildConfig, ModelConfig, OptimizerConfig
from rlpost.learner.errors import ModelError
from rlpost.learner.learner import Learner
from rlpost.learner.own_forward import OwnForward
from rlpost.learner.source import materialise
from rlpost.learner.step import learn
from rlpost.rollout.trajectory import Trajectory
from tests.learner.helpers import TINY, batch, double_updater, gradient, setup, tiny_folder, trajectory, weights_of
from tests.support.own_code import own_code_folder

EOS, MASK = 257, 259
DIFFUSION = ["bgpo", "vrpo_ol", "vrpo_two_pass", "diffu_grpo"]


@pytest.fixture(scope="module", params=[0, 1], ids=["shift 0", "shift 1"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model built as a diffusion model, and one made of a causal one (its predictions sit one position off)."""
    root = tmp_path_factory.mktemp("diffusion")
    if request.param == 0:
        return materialise(ModelConfig(build=TINY), root / "built", 1, "diffusion")
    causal = tiny_folder(root / "causal", 1)
    return materialise(ModelConfig(path=str(causal)), root / "made", 1, "diffusion", convert=True)


def algorithm(name: str, **options: object) -> Algorithm:
    return registry.build(registry.locate(name), {} if name == "diffu_grpo" else {"n_t": 3, **options})


def answers(count: int = 6, **changes: Any) -> StepBatch:
    """Rollouts of one turn each, of several lengths, whose prompts begin alike (states of a prompt depend on the
    response, so sequences of a bidirectional model share none)."""
    made = batch(count, **changes)
    rng = np.random.default_rng(5)
    trajectories = [trajectory(rng, 1, n // 4, n % 4) for n in range(count)]
    for one in trajectories:
        start = int(np.flatnonzero(one.policy_mask)[0])
        one.token_ids[:start] = np.arange(10, 10 + start)
    return replace(made, trajectories=trajectories)


def test_packed_bidirectional_attention_equals_separate(folder: Path) -> None:
    """Lengths that share a padded group, and ones that do not."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).double()
    lengths = [13, 12, 12, 7, 6, 1]
    rng = torch.Generator().manual_seed(1)
    sequences = [torch.randint(256, (1, length), generator=rng) for length in lengths]
    model.set_attn_implementation("sdpa")
    separate = torch.cat([model(ids, use_cache=False).logits for ids in sequences], dim=1)
    model.set_attn_implementation(NAME)
    layout = PackedLayout.of(lengths, "cpu", causal=False)
    packed = model(
        torch.cat(sequences, dim=1), position_ids=layout.position_ids, packed_layout=layout, use_cache=False
    ).logits
    torch.testing.assert_close(packed, separate, rtol=0, atol=1e-12)
    changed = sequences[0].clone()
    changed[0, -1] += 1
    assert (model_logits(model, changed, layout=None)[0, 0] - separate[0, 0]).abs().max() > 1e-6  # it looks ahead


def model_logits(model: Any, ids: torch.Tensor, layout: None) -> torch.Tensor:
    model.set_attn_implementation("sdpa")
    logits: torch.Tensor = model(ids, use_cache=False).logits
    return logits


def plain_logprobs(model: Any, one: Trajectory, masked: np.ndarray[Any, Any]) -> torch.Tensor:
    """(T,) log-probabilities of all tokens, from full logits of one sequence; the mask token is no outcome."""
    shift = model.config.logit_shift
    ids = torch.from_numpy(one.token_ids).long()
    seen = torch.where(torch.from_numpy(masked), MASK, ids)
    logits = model(seen[None], use_cache=False).logits[0]
    logits = logits.index_fill(1, torch.tensor([MASK]), -torch.inf)
    logs = torch.log_softmax(logits, -1)
    return logs[torch.arange(len(ids)) - shift, ids]


def test_a_bgpo_step_is_reinforce_on_the_elbo_of_separate_sequences(folder: Path) -> None:
    made, step = algorithm("bgpo"), answers()
    updater = double_updater(folder, made, max_tokens=40)
    model = double_updater(folder, made).policy.model
    model.set_attn_implementation("sdpa")
    loss = torch.zeros((), dtype=torch.float64)
    for index, (one, advantage) in enumerate(zip(step.trajectories, step.advantages.astype(np.float32), strict=True)):
        for view in made.views(cut(one), np.random.default_rng([step.seed, index])):
            assert view.masked is not None
            logprobs = plain_logprobs(model, cut(one), view.masked)
            terms = torch.from_numpy(view.extra["weight"]) * logprobs
            loss = loss - float(advantage) * terms[torch.from_numpy(view.masked)].sum() / (3 * len(step.trajectories))
    loss.backward()
    expected = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    found = gradient(updater, step)
    assert (found - expected).norm() < 1e-11 * expected.norm()


def cut(one: Trajectory) -> Trajectory:
    """Without what follows the last policy token; the learner never computes that."""
    end = int(np.flatnonzero(one.policy_mask)[-1]) + 1
    return replace(one, token_ids=one.token_ids[:end], policy_mask=one.policy_mask[:end])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise(ModelConfig(build=TINY), tmp_path_factory.mktemp("built"), 1, "diffusion")


@pytest.mark.parametrize("name", DIFFUSION)
def test_any_split_into_packs_gives_the_same_gradient(name: str, built: Path) -> None:
    whole = gradient(double_updater(built, algorithm(name)), answers())
    assert whole.norm() > 0.1
    for budget in (60, 25, 2):
        cut_up = gradient(double_updater(built, algorithm(name), budget), answers())
        assert (cut_up - whole).norm() < 1e-12 * whole.norm()


def off_policy(folder: Path, name: str, budget: int = 1000) -> tuple[list[torch.Tensor], dict[str, float]]:
    """Weights after each of two updates on the same rollouts, in fp64: the second is off-policy."""
    updater = double_updater(folder, algorithm(name, epochs=2), budget)
    seen: list[torch.Tensor] = []
    take = updater.optimizer.step

    def spy(*args: Any, **kwargs: Any) -> None:
        take(*args, **kwargs)
        seen.append(torch.cat([weight.detach().flatten().clone() for _, weight in updater.policy.trainable()]))

    updater.optimizer.step = spy  # type: ignore[method-assign]
    updater.config = updater.config.model_copy(update={"optimizer": OptimizerConfig(lr=2e-4, clip_grad=0)})
    result = learn(updater, answers())
    return seen, result.metrics


def test_on_policy_all_three_agree_and_off_policy_two_passes_are_exact(built: Path) -> None:
    """The two-pass form has the exact objective's gradient a copy at a time, however the copies are cut into packs;
    the bound's differs from it once the policy has moved."""
    exact, _ = off_policy(built, "vrpo_ol")
    two_pass, _ = off_policy(built, "vrpo_two_pass", budget=25)
    bound, metrics = off_policy(built, "bgpo")
    for other in (two_pass, bound):
        assert (other[0] - exact[0]).norm() < 1e-12 * exact[0].norm()
    step = (exact[1] - exact[0]).norm()
    assert (two_pass[1] - exact[1]).norm() < 1e-8 * step
    assert (bound[1] - exact[1]).norm() > 1e-3 * step
    assert metrics["log_ratio"] > 1e-3
    assert metrics["capped"] == 0
    assert metrics["elbo"] < 0


def test_old_and_new_policy_see_the_same_masks(built: Path) -> None:
    """So d is exactly 0 in a step's first update, up to the rounding of another pack."""
    drift: list[float] = []

    class Spy(Elbo):
        def objective(self, d: torch.Tensor, views: Any, advantages: torch.Tensor) -> torch.Tensor:
            drift.append(float(d.detach().abs().max()))
            return d * advantages

    learn(double_updater(built, Spy(Elbo.Config(n_t=4, epochs=2)), 50), answers())  # type: ignore[call-arg]
    packs = len(drift) // 2
    assert max(drift[:packs]) < 1e-10
    assert max(drift[packs:]) > 1e-3


def test_rollouts_of_older_weights_need_no_token_weights(built: Path) -> None:
    on, off = (gradient(double_updater(built, algorithm("bgpo")), answers(lag=lag)) for lag in (0, 2))
    torch.testing.assert_close(on, off, rtol=0, atol=0)


def test_a_response_of_one_end_token_is_learned_from(built: Path) -> None:
    """All-EOS: the response is its first end token. An end token in the prompt is context like any other."""
    step = answers(2)
    for one in step.trajectories:
        start = int(np.flatnonzero(one.policy_mask)[0])
        one.token_ids[:] = EOS
        one.policy_mask[start + 1 :] = False
    for name in DIFFUSION:
        found = gradient(double_updater(built, algorithm(name)), step)
        assert torch.isfinite(found).all()
        assert found.norm() > 0


@pytest.mark.parametrize("name", DIFFUSION)
def test_a_sharded_learner_in_bf16_learns_the_same(name: str, built: Path) -> None:
    """FSDP2 around one rank, as on a GPU: masters move where those of a plain fp32 learner move."""
    options = {} if name == "diffu_grpo" else {"n_t": 3}
    made = registry.build(registry.locate(name), options | {"minibatches": 2})
    moved = []
    for dtype in ("fp32", "bf16"):
        learner = Learner(
            setup(built, dtype=dtype, optimizer=OptimizerConfig(name="torch.optim:SGD", lr=1e-2)), algorithm=made
        )
        before = weights_of(learner)
        result = learner.learn(answers())
        after = weights_of(learner)
        moved.append(np.concatenate([(after[key] - before[key]).ravel() for key in before]))
        learner.close()
        assert result.metrics["updates"] == 2
    cosine = moved[0] @ moved[1] / np.linalg.norm(moved[0]) / np.linalg.norm(moved[1])
    assert cosine > 0.98


def test_a_model_of_the_wrong_kind_is_refused(built: Path, model_folder: Path) -> None:
    with pytest.raises(LearnerError, match=r"trains a diffusion model, and .* is a causal one"):
        Learner(setup(model_folder), algorithm=algorithm("bgpo"))
    with pytest.raises(LearnerError, match=r"trains a causal model, and .* is a diffusion one"):
        Learner(
            setup(built),
            algorithm=registry.build(registry.locate("grpo"), {}),
        )
    with pytest.raises(ModelError, match=r"is a causal language model .* or a warm_start"):
        materialise(ModelConfig(path=str(model_folder)), built / "x", 0, "diffusion")
    with pytest.raises(ModelError, match="is a masked-diffusion model and the algorithm trains a causal one"):
        materialise(ModelConfig(path=str(built)), built / "x", 0, "causal")


@pytest.mark.parametrize(("mask", "words"), [(263, "not in the tokenizer"), (EOS, "ends a sequence")])
def test_a_diffusion_model_without_a_mask_token_is_refused(mask: int, words: str, built: Path, tmp_path: Path) -> None:
    for file in built.glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace(f'"mask_token_id": {MASK}', f'"mask_token_id": {mask}'))
    with pytest.raises(ModelError, match=f"no mask token.*{words}"):
        materialise(ModelConfig(path=str(tmp_path)), tmp_path / "x", 0, "diffusion")


def test_a_checkpoint_stays_a_diffusion_model(built: Path, tmp_path: Path) -> None:
    learner = Learner(setup(built, optimizer=OptimizerConfig(lr=1e-2)), algorithm=algorithm("bgpo"))
    learner.learn(answers())
    learner.save(tmp_path / "step")
    again = Learner(setup(tmp_path / "step"), algorithm=algorithm("bgpo"))
    assert again.policy.reading == learner.policy.reading
    np.testing.assert_array_equal(again.score([[1, 2, 3, 4]])[0], learner.score([[1, 2, 3, 4]])[0])


class Alive(TorchDispatchMode):
    """Bytes of all tensors made under it that are still alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known or not storage.nbytes():
            return
        self._known[key] = storage.nbytes()
        self.bytes += storage.nbytes()
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.bytes -= self._known.pop(key)


def peak_of_a_step(folder: Path, name: str, n_t: int) -> int:
    """Bytes a step takes at its peak beyond what was there before it; responses of 128 tokens, a pack each."""
    config = setup(folder, max_tokens_per_pack=2, optimizer=OptimizerConfig(lr=1e-4))
    learner = Learner(config, algorithm=registry.build(registry.locate(name), {"n_t": n_t}))
    step = answers(2)
    for one in step.trajectories:
        one.token_ids = np.arange(144, dtype=np.int32) % 256
        one.policy_mask = np.arange(144) >= 16
        one.rollout_logprobs = np.where(one.policy_mask, -1, np.nan).astype(np.float32)
        one.turns = [replace(one.turns[0], start=16, end=144)]
    learner.learn(step)  # the optimizer's state exists from here on
    with Alive() as alive:
        learner.learn(replace(step, step=1))
    learner.close()
    return alive.peak


@pytest.mark.parametrize("counts", [(1, 4, 16), pytest.param((1, 4, 16, 64), marks=pytest.mark.slow)])
def test_bgpo_takes_the_memory_of_one_copy_and_vrpo_ol_that_of_all(counts: tuple[int, ...], tmp_path: Path) -> None:
    build = BuildConfig(hidden=256, layers=3, heads=4, intermediate=512)
    folder = materialise(ModelConfig(build=build), tmp_path / "model", 0, "diffusion")
    bgpo, vrpo = ([peak_of_a_step(folder, name, n_t) for n_t in counts] for name in ("bgpo", "vrpo_ol"))
    assert abs(bgpo[-1] / bgpo[0] - 1) < 0.02, bgpo
    assert vrpo[0] == pytest.approx(bgpo[0], rel=0.02)
    slopes = np.diff(vrpo) / np.diff(counts)
    assert slopes == pytest.approx(slopes[:1].repeat(len(slopes)), rel=0.1), vrpo  # a straight line
    assert vrpo[-1] > 5 * bgpo[-1]


@pytest.mark.parametrize(("model_type", "causal_name", "shift"), [("llada_like", True, 0), ("Dream", False, 1)])
def test_a_model_with_its_own_code_is_computed_by_it(
    model_type: str, causal_name: bool, shift: int, built: Path, tmp_path: Path
) -> None:
    folder = own_code_folder(tmp_path / "own", model_type, causal_name, built)
    with pytest.raises(ModelError, match=r"config\.json"):
        materialise(ModelConfig(path=str(folder)), tmp_path / "x", 0, "diffusion")  # off unless the recipe says so
    place = materialise(ModelConfig(path=str(folder), trust_remote_code=True), tmp_path / "x", 0, "diffusion")
    trusting = replace(setup(place, optimizer=OptimizerConfig(lr=1e-2)), trust_remote_code=True)
    learner = Learner(trusting, algorithm=algorithm("bgpo"))
    assert isinstance(learner.policy, OwnForward)
    assert learner.policy.reading.shift == shift
    ids = torch.tensor([[5, MASK, 7, MASK, 9]])
    with torch.no_grad():
        logits = learner.policy.model(ids).logits[0]
    logits[:, MASK] = -torch.inf
    expected = torch.log_softmax(logits, -1)[[1 - shift, 3 - shift], [6, 8]]
    scores = learner.score([[5, 6, 7, 8, 9]])[0]
    np.testing.assert_allclose(scores[[0, 2]], expected.numpy(), atol=1e-5)
    before = learner.score([[5, 6, 7, 8, 9]])[0]
    assert not learner.learn(answers()).skipped
    assert not np.array_equal(before, learner.score([[5, 6, 7, 8, 9]])[0])
