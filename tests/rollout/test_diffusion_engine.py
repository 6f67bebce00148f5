"""The diffusion engine against a plain reference, with its caches, its ends, its weights, and what it refuses.

The reference decodes one sequence at a time with the model's own forward pass and full logits. Left out: speed
(benchmarks/bgpo_engine.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from rlpost.learner.batch import LearnerSetup
from rlpost.learner.config import BuildConfig, LearnerConfig, ModelConfig
from rlpost.learner.learner import Learner
from rlpost.learner.source import materialise
from rlpost.rollout.diffusion.config import DiffusionConfig
from rlpost.rollout.diffusion.decode import Row, decode, draw
from rlpost.rollout.diffusion.engine import DiffusionEngine
from rlpost.rollout.diffusion.model import BlockModel
from rlpost.rollout.engine import EngineError, Sample, SampleRequest
from rlpost.rollout.weight_update import DEFAULT_TRANSPORT, WeightUpdate
from rlpost.weights import probe_tokens
from tests.support.own_code import own_code_folder

BUILD = BuildConfig(hidden=32, layers=2, heads=4, kv_heads=2, intermediate=48, initializer_range=0.3)
EOS, MASK = 257, 259
PROMPTS = [[5, 6, 7], [100, 3, EOS, 44, 9, 12, 65], [1], [200, 201, 202, 203]]  # one has an end token in it


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A model of each logit shift: built as a diffusion model, and made of a causal one."""
    root = tmp_path_factory.mktemp("diffusion")
    built = materialise(ModelConfig(build=BUILD), root / "built", 3, "diffusion")
    causal = materialise(ModelConfig(build=BUILD), root / "causal", 3, "causal")
    made = materialise(ModelConfig(path=str(causal)), root / "made", 3, "diffusion", convert=True)
    return {0: built, 1: made}


def reference(
    folder: Path, prompt: Sequence[int], length: int, block: int, steps: int, temperature: float, seed: int, shift: int
) -> tuple[list[int], list[float], list[int]]:
    """Tokens, log-probabilities and commit steps, one sequence at a time, as LLaDA's description has it."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rng = torch.Generator().manual_seed(seed)
    x = [*prompt, *[MASK] * length]
    logprobs, commits, clock = [0.0] * len(x), [-1] * len(x), 0
    for start in range(len(prompt), len(x), block):
        for step in range(steps):
            take = block // steps + (1 if step < block % steps else 0)
            with torch.no_grad():
                logits = model(torch.tensor([x]), use_cache=False).logits[0].double()
            logits[:, MASK] = -torch.inf
            noise = torch.rand((block, logits.shape[1]), generator=rng, dtype=torch.float64)
            candidates = []
            for place in range(start, start + block):
                if x[place] != MASK:
                    continue
                own = logits[place - shift]
                token = int((own - temperature * torch.log(-torch.log(noise[place - start]))).argmax())
                sure = float(torch.softmax(own, -1)[token])
                logprob = float(torch.log_softmax(own / (temperature or 1.0), -1)[token])
                candidates.append((-sure, place, token, logprob))
            for _, place, token, logprob in sorted(candidates)[:take]:
                x[place], logprobs[place], commits[place] = token, logprob, clock
            clock += 1
    part = slice(len(prompt), None)
    return x[part], logprobs[part], commits[part]


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize(("steps", "temperature"), [(4, 1.0), (2, 0.7), (3, 1.0), (4, 0.0)])
def test_without_cache_it_is_the_reference_token_for_token(
    steps: int, temperature: float, shift: int, folders: dict[int, Path]
) -> None:
    """All prompts in one batch, of different lengths; 3 steps do not divide a block of 4."""
    model = BlockModel.load(str(folders[shift]), torch.float32, "cpu")
    assert model.shift == shift
    config = DiffusionConfig(block=4, steps=steps, after_eos="keep")
    rows = [Row(prompt, temperature, 10 + i) for i, prompt in enumerate(PROMPTS)]
    samples = decode(model, rows, 12, config, [EOS], version=7)
    assert model.passes == 3 * steps
    for i, (prompt, sample) in enumerate(zip(PROMPTS, samples, strict=True)):
        tokens, logprobs, commits = reference(folders[shift], prompt, 12, 4, steps, temperature, 10 + i, shift)
        assert sample.token_ids.tolist() == tokens
        assert sample.commit_steps is not None
        assert sample.commit_steps.tolist() == commits
        np.testing.assert_allclose(sample.logprobs, logprobs, atol=2e-5)
        assert sample.versions.tolist() == [7] * 12


def test_a_row_does_not_depend_on_its_neighbours(folders: dict[int, Path]) -> None:
    model = BlockModel.load(str(folders[0]), torch.float32, "cpu")
    config = DiffusionConfig(block=4, after_eos="keep")
    rows = [Row(prompt, 1.0, 10 + i) for i, prompt in enumerate(PROMPTS)]
    together = decode(model, rows, 8, config, [EOS])
    alone = [decode(model, [row], 8, config, [EOS])[0] for row in rows]
    assert [s.token_ids.tolist() for s in together] == [s.token_ids.tolist() for s in alone]


@pytest.mark.parametrize("cache", ["prefix", "dual"])
@pytest.mark.parametrize("shift", [0, 1])
def test_caches_are_exact_where_nothing_kept_has_changed(cache: Any, shift: int, folders: dict[int, Path]) -> None:
    """In a block's first step all columns are computed; and one block with one step has no other. With several steps a
    cache holds older states: log-probs then differ, and stay distributions."""
    plain, cached = (BlockModel.load(str(folders[shift]), torch.float32, "cpu", kind) for kind in ("none", cache))
    rows = [Row(prompt, 1.0, 10 + i) for i, prompt in enumerate(PROMPTS)]
    one_step = DiffusionConfig(block=4, steps=1, after_eos="keep")
    same = [decode(model, rows, 12, one_step, [EOS]) for model in (plain, cached)]
    assert [s.token_ids.tolist() for s in same[0]] == [s.token_ids.tolist() for s in same[1]]
    ids = torch.randint(256, (2, 14), generator=torch.Generator().manual_seed(0))
    ids[:, 6:10] = MASK
    full = plain.logits(ids, [0, 2], slice(6, 10), first=True)
    torch.testing.assert_close(cached.logits(ids, [0, 2], slice(6, 10), first=True), full, rtol=0, atol=1e-5)
    torch.testing.assert_close(cached.logits(ids, [0, 2], slice(6, 10), first=False), full, rtol=0, atol=1e-5)
    ids[:, 7] = 3  # a token of the block was kept: what lies outside of it is now of an older state
    changed = plain.logits(ids, [0, 2], slice(6, 10), first=False)
    stale = cached.logits(ids, [0, 2], slice(6, 10), first=False)
    assert 1e-5 < (stale - changed).abs().max() < (stale - full).abs().max()


def test_a_threshold_unmasks_all_that_is_sure_and_at_least_one(folders: dict[int, Path]) -> None:
    rows = [Row(prompt, 1.0, 10 + i) for i, prompt in enumerate(PROMPTS)]
    passes = {}
    for threshold in (1e-9, 1.0):
        model = BlockModel.load(str(folders[0]), torch.float32, "cpu")
        samples = decode(model, rows, 8, DiffusionConfig(block=4, threshold=threshold, after_eos="keep"), [EOS])
        assert all(len(sample.token_ids) == 8 and MASK not in sample.token_ids for sample in samples)
        passes[threshold] = model.passes
    assert passes == {1e-9: 2, 1.0: 8}


def test_draws_follow_the_distribution_and_the_mask_token_is_never_drawn() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, 9.0]).repeat(20000, 1)[None]
    rng = [torch.Generator().manual_seed(0)]
    for temperature in (1.0, 0.5):
        token, logprob, confidence = draw(logits, torch.tensor([temperature], dtype=torch.float64), rng, never=3)
        expected = torch.softmax(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64) / temperature, -1)
        shares = torch.bincount(token[0], minlength=4) / 20000
        torch.testing.assert_close(shares[:3].double(), expected, rtol=0, atol=0.015)
        assert shares[3] == 0
        torch.testing.assert_close(logprob[0].exp(), expected[token[0]], rtol=1e-9, atol=0)
        plain = torch.softmax(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), -1)
        torch.testing.assert_close(confidence[0], plain[token[0]], rtol=1e-9, atol=0)
    assert (draw(logits, torch.zeros(1, dtype=torch.float64), rng, never=3)[0] == 2).all()


class Scripted(BlockModel):
    """Writes given responses, whatever it reads."""

    def __init__(self, folder: Path, responses: list[list[int]], prompt: int) -> None:
        super().__init__(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
        self.responses = torch.tensor(responses)
        self.prompt = prompt
        self.rows: list[int] = []

    def logits(self, ids: torch.Tensor, padding: Sequence[int], block: slice, first: bool) -> torch.Tensor:
        self.rows.append(len(ids))
        which = ids[:, self.prompt - 1]  # the prompt's last token is the number of the response
        part = self.responses[which, block.start - self.prompt : block.stop - self.prompt]
        return torch.nn.functional.one_hot(part, self.vocabulary).float() * 50


def test_rows_end_with_the_block_of_their_first_end_token(folders: dict[int, Path]) -> None:
    responses = [[EOS] * 6, [1, 2, 3, EOS, 5, 6], [1, 2, 3, 4, 5, 6], [1, EOS, 3, 4, EOS, 6]]
    rows = [Row([EOS, 9, number], 1.0, number) for number in range(4)]  # the prompt's own end token ends nothing
    model = Scripted(folders[0], responses, prompt=3)
    samples = decode(model, rows, 6, DiffusionConfig(block=2), [EOS])
    assert [sample.token_ids.tolist() for sample in samples] == [[EOS], [1, 2, 3, EOS], [1, 2, 3, 4, 5, 6], [1, EOS]]
    assert [sample.stopped for sample in samples] == [True, True, False, True]
    assert model.rows == [4, 4, 2, 2, 1, 1]
    kept = decode(Scripted(folders[0], responses, 3), rows, 6, DiffusionConfig(block=2, after_eos="keep"), [EOS])
    assert [sample.token_ids.tolist() for sample in kept] == responses
    assert [sample.stopped for sample in kept] == [True, True, False, True]


def engine(folder: Path, **changes: Any) -> DiffusionEngine:
    options: dict[str, Any] = {"config": DiffusionConfig(block=4), "max_context": 24, "stop_token_ids": [EOS]}
    return DiffusionEngine(str(folder), **(options | changes))


def request(number: int, **changes: Any) -> SampleRequest:
    prompt = PROMPTS[number % len(PROMPTS)]
    return SampleRequest(**({"id": str(number), "token_ids": prompt, "max_tokens": 8, "seed": number} | changes))


async def _all(made: DiffusionEngine, requests: Sequence[SampleRequest]) -> list[Sample]:
    try:
        return list(await asyncio.gather(*(made.generate(one) for one in requests)))
    finally:
        await made.close()


def test_requests_are_decoded_in_batches_of_at_most_slots(folders: dict[int, Path]) -> None:
    requests = [request(number) for number in range(10)]
    few, many = engine(folders[0], slots=3), engine(folders[0], slots=64)
    samples = [asyncio.run(_all(made, requests)) for made in (few, many)]
    assert [s.token_ids.tolist() for s in samples[0]] == [s.token_ids.tolist() for s in samples[1]]
    assert few.stats()["passes"] > many.stats()["passes"] > 0
    assert few.stats()["tokens"] == sum(len(s.token_ids) for s in samples[0])


def test_in_lock_step_a_batch_waits_for_every_live_episode(folders: dict[int, Path]) -> None:
    made = engine(folders[0], deterministic=True)
    made.expect(3)

    async def play() -> list[Sample]:
        first = asyncio.gather(*(made.generate(request(n, order=9 - n)) for n in range(2)))
        await asyncio.sleep(0.05)
        assert made.stats()["passes"] == 0
        made.episode_done()
        return list(await first)

    assert len(asyncio.run(play())) == 2


def test_an_aborted_request_comes_back_at_once_or_at_its_next_block(folders: dict[int, Path]) -> None:
    made = engine(folders[0], slots=1)

    async def play() -> Sample:
        first = asyncio.create_task(made.generate(request(0)))
        second = asyncio.create_task(made.generate(request(1)))
        await asyncio.sleep(0)
        made.abort("1")
        assert not (await first).aborted
        return await second

    sample = asyncio.run(play())
    assert sample.aborted
    assert len(sample.token_ids) == 0


def publication(folder: Path, version: int, transport: str = DEFAULT_TRANSPORT) -> tuple[Learner, WeightUpdate]:
    learner = Learner(LearnerSetup(folder, LearnerConfig(device="cpu", dtype="fp32"), transport=transport))
    return learner, learner.weights(version)


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize(
    ("cache", "transport"),
    [("none", DEFAULT_TRANSPORT), ("dual", DEFAULT_TRANSPORT), ("dual", "tests.support.by_files:ByFiles")],
)
def test_probes_agree_with_the_learner_after_an_update_and_not_before(
    shift: int, cache: Any, transport: str, folders: dict[int, Path]
) -> None:
    learner, _ = publication(folders[shift], 0, transport)
    with torch.no_grad():
        for _, weight in learner.policy.trainable():
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    made = engine(folders[shift], config=DiffusionConfig(block=4, cache=cache), transport=transport)
    probe = [*probe_tokens(learner.vocabulary, 0), [MASK, 3, MASK, 9]]

    def gap() -> float:
        result = asyncio.run(made.probe(probe, 0.7, seed=5))
        extended = [[*ids, drawn] for ids, drawn in zip(probe, result.sampled_ids, strict=True)]
        plain, warm = learner.score(extended, 1.0), learner.score(extended, 0.7)
        assert [len(ours) - 1 for ours in plain] == [len(theirs) for theirs in result.fixed_logprobs]
        parts = [np.abs(ours[:-1] - theirs) for ours, theirs in zip(plain, result.fixed_logprobs, strict=True)]
        drawn = np.abs([ours[-1] - theirs for ours, theirs in zip(warm, result.sampled_logprobs, strict=True)])
        return float(np.concatenate([*parts, drawn]).max())

    assert gap() > 0.05
    asyncio.run(made.update_weights(learner.weights(4)))
    assert made.version == 4
    assert gap() < 1e-4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_tokens": 6}, "not a multiple of engine.block"),
        ({"max_tokens": 24}, "do not fit rollout.max_context"),
        ({"token_ids": []}, "prompt of 0 tokens"),
        ({"token_ids": [1, MASK]}, "is the mask token"),
        ({"token_ids": [1, 9999]}, "9999"),
    ],
)
def test_requests_that_cannot_be_sampled_are_refused(changes: dict, words: str, folders: dict[int, Path]) -> None:
    with pytest.raises(EngineError, match=words):
        asyncio.run(_all(engine(folders[0]), [request(0, **changes)]))


def test_weights_that_do_not_fit_change_nothing(folders: dict[int, Path]) -> None:
    _, update = publication(folders[0], 3)
    update.names[0] = "other"
    made = engine(folders[0], version=2)
    with pytest.raises(EngineError, match="no parameter 'other'"):
        asyncio.run(made.update_weights(update))
    assert made.version == 2


def test_broken_weights_fail_the_request_and_not_the_engine(folders: dict[int, Path]) -> None:
    learner, _ = publication(folders[0], 0)
    made = engine(folders[0])
    with torch.no_grad():
        learner.policy.trainable()[0][1].fill_(float("nan"))
    asyncio.run(made.update_weights(learner.weights(1)))
    with pytest.raises(EngineError, match="not finite at weights version 1"):
        asyncio.run(_all(made, [request(0)]))


def test_a_causal_model_is_refused(tmp_path: Path) -> None:
    causal = materialise(ModelConfig(build=BUILD), tmp_path / "causal")
    with pytest.raises(EngineError, match="no masked-diffusion model"):
        engine(causal)


@pytest.mark.parametrize("wrong", [{"block": 0}, {"block": 4, "steps": 5}, {"threshold": 0}, {"cache": "all"}])
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        DiffusionConfig(**wrong)


def test_the_remainder_goes_to_the_first_steps() -> None:
    assert DiffusionConfig(block=7, steps=3).unmasked() == [3, 2, 2]
    assert DiffusionConfig(block=3).unmasked() == [1, 1, 1]


def test_a_model_with_its_own_code_decodes_without_padding_or_cache(folders: dict[int, Path], tmp_path: Path) -> None:
    own = own_code_folder(tmp_path / "own", "llada_like", True, folders[0])
    made = engine(own, trust_remote_code=True)
    requests = [request(number, max_tokens=4) for number in range(8)]  # two of each prompt, each prompt a batch
    samples = asyncio.run(_all(made, requests))
    assert made.stats()["passes"] == 4 * 4
    alone = [asyncio.run(_all(engine(own, trust_remote_code=True), [one]))[0] for one in requests]
    assert [s.token_ids.tolist() for s in samples] == [s.token_ids.tolist() for s in alone]
    with pytest.raises(EngineError, match=r"engine.cache: .* run without"):
        engine(own, trust_remote_code=True, config=DiffusionConfig(block=4, cache="prefix"))
