"""What only a GPU can show: the variable-length kernel, bf16 learning, CUDA IPC. Skipped where there is none."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlpost.algorithms.base import Algorithm, StepConstants
from rlpost.algorithms.grpo import GRPO
from rlpost.algorithms.loop import Loop, LoopConfig
from rlpost.learner.attention import PackedLayout, packed_attention
from rlpost.learner.config import OptimizerConfig
from rlpost.learner.learner import Learner
from rlpost.learner.logprobs import tiled_logprobs
from rlpost.learner.packing import Pack
from rlpost.learner.sharing import shared_rows
from rlpost.learner.varlen import available
from rlpost.learner.views import FlatBatch
from rlpost.rollout.transport.registry import find
from tests.learner.helpers import Clipped, batch, setup, tiny_folder, weights_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize("window", [None, 16])
@pytest.mark.parametrize("shared", [1, 4])
@pytest.mark.parametrize("prompt", [0, 50])
def test_the_kernel_agrees_with_padded_rows(window: int | None, shared: int, prompt: int) -> None:
    torch.manual_seed(0)
    lengths = [130, 127, 64, 64, 1]
    rows = shared_rows([np.arange(length) for length in lengths], [min(prompt, length) for length in lengths])
    count = sum(lengths) if rows is None else int(rows.max()) + 1
    query, key, value = (
        torch.randn(1, heads, count, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for heads in (8, 8 // shared, 8 // shared)
    )
    assert available(query.device, query.dtype)
    results = []
    for padded in (False, True):
        layout = PackedLayout.of(lengths, "cuda", padded, rows=rows)
        output, _ = packed_attention(
            torch.nn.Identity(), query, key, value, None, sliding_window=window, packed_layout=layout
        )
        weight = torch.arange(output.numel(), device="cuda").view_as(output).sin()
        results.append([output, *torch.autograd.grad((output.float() * weight).sum(), (query, key, value))])
    for own, other in zip(*results, strict=True):
        torch.testing.assert_close(own, other, rtol=2e-2, atol=4e-2)


def test_the_kernel_agrees_with_padded_rows_where_attention_looks_both_ways() -> None:
    torch.manual_seed(0)
    lengths = [130, 127, 64, 64, 1]
    states = [torch.randn(1, heads, sum(lengths), 64, device="cuda", dtype=torch.bfloat16) for heads in (8, 2, 2)]
    first, second = (
        packed_attention(
            torch.nn.Identity(), *states, None, packed_layout=PackedLayout.of(lengths, "cuda", padded, causal=False)
        )[0]
        for padded in (False, True)
    )
    torch.testing.assert_close(first, second, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("window", [None, 100])
def test_long_sequences_give_the_numbers_of_the_variable_length_kernel(window: int | None) -> None:
    torch.manual_seed(0)
    states = [torch.randn(1, heads, 16384, 64, device="cuda", dtype=torch.bfloat16) for heads in (4, 2, 2)]
    lengths = [[8192, 8192], [8192, 8191, 1]]  # the second cannot be laid out in rows
    first, second = (
        packed_attention(
            torch.nn.Identity(), *states, None, sliding_window=window, packed_layout=PackedLayout.of(one, "cuda", False)
        )[0][:, :8192]
        for one in lengths
    )
    torch.testing.assert_close(first, second, rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize("algorithm", [GRPO(), Loop(), Loop(LoopConfig(ratio="turn"))])
def test_packs_are_learned_from_without_waiting_for_the_gpu(algorithm: Algorithm, tmp_path: Path) -> None:
    learner = Learner(setup(tiny_folder(tmp_path / "m", hidden=128), device="cuda", dtype="bf16"), algorithm=algorithm)
    policy, made = learner.policy, batch(3)
    views = [algorithm.views(one, np.random.default_rng(0)) for one in made.trajectories]
    flat = FlatBatch.of(policy.reading, made.trajectories, views, made.advantages, policy.device)
    for mode in ("default", "error"):  # the first round compiles kernels and gathers weights
        torch.cuda.set_sync_debug_mode(mode)
        try:
            pack = Pack((0, 1, 2), sum(flat.rows.lengths))
            inputs = flat.rows.inputs(pack, policy)
            logprobs, _ = policy(inputs.input_ids, inputs.layout, inputs.rows, inputs.targets, 0.9)
            seen = flat.views(pack, inputs, logprobs, None, fresh=True)
            output = algorithm.loss(seen, StepConstants(3, 20, 3, 64, 20))
            output.loss.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    learner.close()


@pytest.mark.parametrize(("compiled", "checkpointing"), [(True, False), (False, "offload"), (True, True)])
def test_fast_and_frugal_paths_learn_the_same(compiled: bool, checkpointing: bool | str, tmp_path: Path) -> None:
    from torch._dynamo.utils import counters

    folder = tiny_folder(tmp_path / "m", hidden=128, initializer_range=0.1)
    config = {"optimizer": OptimizerConfig(name="torch.optim:SGD", lr=0.1, clip_grad=0.0), "max_tokens_per_pack": 60}
    moves = []
    counters.clear()
    plain = setup(folder, device="cuda", dtype="bf16", **config)
    other = setup(folder, device="cuda", dtype="bf16", **config, gradient_checkpointing=checkpointing)
    for made in (plain, replace(other, compiled=compiled)):
        learner = Learner(made, algorithm=Clipped())
        before = weights_of(learner)
        learner.learn(batch(8))
        after = weights_of(learner)
        moves.append(torch.cat([torch.from_numpy(after[name] - before[name]).flatten() for name in after]))
        learner.close()
    assert (moves[1] - moves[0]).norm() < 0.03 * moves[0].norm()
    assert not counters["graph_break"]  # a compiled layer is one graph, attention's kernel in it


def test_tiled_logprobs_of_a_large_vocabulary_take_little_memory() -> None:
    rows, vocabulary, width, tile = 8192, 151_936, 896, 1024
    hidden = torch.randn(rows, width, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight = (torch.randn(vocabulary, width, device="cuda") * 0.05).bfloat16().requires_grad_()
    targets = torch.randint(vocabulary, (rows,), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    logprob, entropy = tiled_logprobs(hidden, weight, targets, 0.9, tile)
    (logprob.sum() + entropy.sum()).backward()
    peak = torch.cuda.max_memory_allocated() - before
    assert peak < 3.5 * tile * vocabulary * 4 + 3 * vocabulary * width * 4  # all logits in fp32 would be 8 tiles
    exact = torch.log_softmax((hidden[:64] @ weight.t()).double() / 0.9, -1)
    torch.testing.assert_close(logprob[:64].double(), exact.gather(1, targets[:64, None])[:, 0], rtol=0, atol=2e-2)
    torch.testing.assert_close(entropy[:64].double(), -(exact.exp() * exact).sum(-1), rtol=0, atol=2e-2)


def test_bf16_on_the_gpu_learns_what_fp32_on_the_cpu_learns(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", hidden=128, initializer_range=0.1)
    config = {"optimizer": OptimizerConfig(name="torch.optim:SGD", lr=0.1, clip_grad=0.0)}
    before, changes = None, []
    for device, dtype in (("cpu", "fp32"), ("cuda", "fp32"), ("cuda", "bf16")):
        learner = Learner(setup(folder, device=device, dtype=dtype, **config), algorithm=Clipped())
        before = weights_of(learner)
        assert learner.policy.padded is (dtype == "fp32")
        result = learner.learn(batch(8))
        after = weights_of(learner)
        changes.append(torch.cat([torch.from_numpy(after[name] - before[name]).flatten() for name in after]))
        assert result.metrics["kl_old"] == 0.0
        learner.close()
    exact, same, rough = changes
    assert (same - exact).norm() < 1e-4 * exact.norm()
    assert (rough - exact).norm() < 0.05 * exact.norm()


def _receive(updates: Any, answers: Any) -> None:
    while (update := updates.get()) is not None:
        answers.put({name: weight.double().sum().item() for name, weight in find(update.transport).tensors(update)})


def test_publications_by_ipc_reach_two_processes_and_take_no_more_memory(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m")
    learner = Learner(replace(setup(folder, device="cuda", dtype="bf16"), transport="ipc"), algorithm=Clipped())
    context = torch.multiprocessing.get_context("spawn")
    queues = [(context.Queue(), context.Queue()) for _ in range(2)]
    processes = [context.Process(target=_receive, args=pair) for pair in queues]
    for process in processes:
        process.start()
    taken = []
    for version in range(3):
        learner.learn(batch(8, step=version))
        update = learner.weights(version)
        assert update.transport == "ipc"
        assert sum(sent is not None for sent in update.payload) == 1
        expected = {name: one.double().sum().item() for name, one in learner.policy.full_weights(torch.bfloat16)}
        for updates, answers in queues:
            updates.put(update)
            assert answers.get(timeout=60) == pytest.approx(expected)
        size = sum(2 * math.prod(shape) for shape in update.shapes)
        del update
        taken.append(torch.cuda.memory_allocated())
    assert taken[2] - taken[1] < size / 2
    for (updates, _), process in zip(queues, processes, strict=True):
        updates.put(None)
        process.join(30)
    learner.close()
