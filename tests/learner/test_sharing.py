"""Prompts in common are computed once, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rlpost.algorithms.base import Plan
from rlpost.learner import rows as rows_module
from rlpost.learner.attention import NAME, PackedLayout, owned
from rlpost.learner.sharing import shared_rows

from .helpers import Clipped, batch, double_updater, gradient
from .test_attention import MODELS, SIZES, gradients


def test_rows_by_hand() -> None:
    sequences = [np.array([5, 6, 1, 2]), np.array([7, 1]), np.array([5, 6, 3]), np.array([5, 6, 1, 2])]
    rows = shared_rows(sequences, [2, 1, 2, 2])
    assert rows is not None
    assert rows.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 6, 0, 1, 7, 8]
    assert np.flatnonzero(~owned(rows)).tolist() == [6, 7, 9, 10]


def test_a_sequence_that_is_all_stem_keeps_a_row_of_its_own() -> None:
    rows = shared_rows([np.array([5, 6, 7, 1]), np.array([5, 6, 7]), np.array([5, 6, 7])], [3, 3, 3])
    assert rows is not None
    assert rows.tolist() == [0, 1, 2, 3, 0, 1, 4, 0, 1, 5]


def test_rows_are_not_shared_for_a_trifle() -> None:
    sequences = [np.arange(40), np.concatenate([[0], np.arange(50, 90)])]
    assert shared_rows(sequences, [1, 1]) is None
    assert shared_rows(sequences, [40, 41]) is None


@pytest.mark.parametrize("ends", [[9, 9, 5, 5, 1, 0], [30, 30, 0, 0, 0, 0]])  # of the second, some are all prompt
@pytest.mark.parametrize("name", MODELS)
def test_shared_prompts_equal_separate_sequences(name: str, ends: list[int]) -> None:
    config, model_class, extra = MODELS[name]
    torch.manual_seed(0)
    model = model_class(config(**SIZES | extra)).double()
    draw = np.random.default_rng(1)
    prompts = [draw.integers(0, 50, 6), draw.integers(0, 50, 4)]
    which = [0, 1, 0, 0, 1, 0]
    sequences = [np.concatenate([prompts[p], draw.integers(0, 50, end)]) for p, end in zip(which, ends, strict=True)]
    model.set_attn_implementation("sdpa")
    separate = torch.cat([model(torch.from_numpy(ids)[None], use_cache=False).logits[0] for ids in sequences])
    expected = gradients(model, separate.square().sum())

    model.set_attn_implementation(NAME)
    rows = shared_rows(sequences, [len(prompts[p]) for p in which])
    assert rows is not None
    layout = PackedLayout.of([len(ids) for ids in sequences], "cpu", rows=rows)
    ids = torch.from_numpy(np.concatenate(sequences)[owned(rows)])[None]
    logits = model(ids, position_ids=layout.position_ids, packed_layout=layout, use_cache=False).logits[0]
    packed = logits[torch.from_numpy(rows)]
    torch.testing.assert_close(packed, separate, rtol=0, atol=1e-12)
    # transformers' norms round gradients to fp32, also in an fp64 model: of the sum here, of each summand there
    torch.testing.assert_close(gradients(model, packed.square().sum()), expected, rtol=1e-4, atol=1e-5)


def test_a_step_gives_the_same_gradient_with_and_without_sharing(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = batch(8, seed=3)
    first = [group[0] for group in np.split(np.array(step.trajectories, dtype=object), 2)]
    step.trajectories = [_same_prompt(one, first[index // 4]) for index, one in enumerate(step.trajectories)]
    calls: list[bool] = []

    def watched(*args: object) -> object:
        rows = shared_rows(*args)  # type: ignore[arg-type]
        calls.append(rows is not None)
        return rows

    monkeypatch.setattr(rows_module, "shared_rows", watched)
    shared = gradient(double_updater(model_folder, Clipped(Plan())), step)
    monkeypatch.setattr(rows_module, "shared_rows", lambda *_: None)
    alone = gradient(double_updater(model_folder, Clipped(Plan())), step)
    assert calls == [True]
    torch.testing.assert_close(shared, alone, rtol=1e-4, atol=1e-6 * float(alone.abs().max()))


def _same_prompt(one: object, first: object) -> object:
    """``one`` after the prompt of ``first``."""
    old, new = (int(np.flatnonzero(trajectory.policy_mask)[0]) for trajectory in (one, first))  # type: ignore[attr-defined]
    arrays = {
        name: np.concatenate([getattr(first, name)[:new], getattr(one, name)[old:]])
        for name in ("token_ids", "policy_mask", "rollout_logprobs", "versions")
    }
    turns = [replace(turn, start=turn.start + new - old, end=turn.end + new - old) for turn in one.turns]  # type: ignore[attr-defined]
    return replace(one, turns=turns, **arrays)  # type: ignore[type-var]
