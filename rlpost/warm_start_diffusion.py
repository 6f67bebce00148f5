"""The warm start of a masked-diffusion model: masked cross-entropy on responses with 1 / t weights.

    loss = -mean over conversations of (1 / L) sum_{i masked} (1 / t) log p(y^i | y_t, x)

The last assistant turn is the response; it is padded with end tokens to ``rollout.max_new_tokens``, and these are
trained on, since an engine fills a whole response. It runs in the process of warm_start_worker.py, on the learner's
own model in fp32 (TRL's trainer knows no masks). Left out: checkpoints and adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer

from rlpost.algorithms.elbo import draw_masks
from rlpost.learner.config import LearnerConfig
from rlpost.learner.model import load_model
from rlpost.learner.optimizers import clip_gradient
from rlpost.learner.packing import share
from rlpost.learner.policy import PolicyModel
from rlpost.learner.rows import Rows
from rlpost.learner.sharding import Ranks
from rlpost.learner.source import generation_config, write_model
from rlpost.rollout.diffusion.config import DiffusionConfig
from rlpost.rollout.diffusion.decode import Row, decode
from rlpost.rollout.diffusion.model import BlockModel
from rlpost.warm_start import DONE, PROGRESS, WarmStartJob
from rlpost.warm_start_data import Conversation

CHECK_EVERY = 25


def train(job: WarmStartJob, conversations: Sequence[Conversation], checks: Sequence[Conversation]) -> None:
    """Train on ``conversations`` until the check or the step limit ends it; write model and tokenizer to
    ``job.output``."""
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ranks = Ranks(0, 1, device, "", 60.0, sharded=False)
    config = LearnerConfig(device=device.type, dtype="fp32")
    policy = load_model(job.model, config, ranks, job.trust_remote_code, job.seed)
    tokenizer = AutoTokenizer.from_pretrained(job.model, trust_remote_code=job.trust_remote_code)
    examples = [as_example(one, job.rollout.max_new_tokens, int(tokenizer.eos_token_id)) for one in conversations]
    steps, reached = _fit(job, policy, config, examples, checks, int(tokenizer.eos_token_id))
    write_model(policy.model, Path(job.output), generation_config(job.model))
    tokenizer.save_pretrained(job.output)
    words = f"{DONE} {steps} steps"
    if job.config.stop_accuracy is not None:
        words += f", accuracy {reached:.2f}"
        if reached < job.config.stop_accuracy:
            words += f", short of warm_start.stop_accuracy {job.config.stop_accuracy}; raise warm_start.steps"
    print(words, flush=True)


def _fit(
    job: WarmStartJob,
    policy: PolicyModel,
    config: LearnerConfig,
    examples: Sequence[tuple[NDArray[np.int32], int]],
    checks: Sequence[Conversation],
    eos: int,
) -> tuple[int, float]:
    """Steps taken, and the accuracy at the last check."""
    plan, rng, reached = job.config, np.random.default_rng(job.seed), 0.0
    weights = [weight for _, weight in policy.trainable()]
    optimizer = torch.optim.AdamW(weights, lr=plan.lr, weight_decay=0.0)
    warmup = max(1, plan.steps // 20)
    order: list[int] = []
    for step in range(plan.steps):
        order = order if len(order) >= plan.batch_size else [*order, *rng.permutation(len(examples)).tolist()]
        chosen, order = order[: plan.batch_size], order[plan.batch_size :]
        for group in optimizer.param_groups:
            group["lr"] = plan.lr * min((step + 1) / warmup, (plan.steps - step) / max(1, plan.steps - warmup))
        backward(policy, [examples[index] for index in chosen], config.max_tokens_per_pack, rng)
        clip_gradient(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % CHECK_EVERY and step + 1 < plan.steps:
            continue
        words = f"{PROGRESS} step {step + 1} of at most {plan.steps}"
        if plan.stop_accuracy is not None and job.diffusion is not None:
            reached = accuracy(policy, checks, job.rollout.max_new_tokens, job.diffusion, [eos])
            words += f", accuracy {reached:.2f} of {plan.stop_accuracy:.2f}"
        print(words, flush=True)
        if plan.stop_accuracy is not None and reached >= plan.stop_accuracy:
            return step + 1, reached
    return plan.steps, reached


def backward(
    policy: PolicyModel, batch: Sequence[tuple[NDArray[np.int32], int]], max_tokens: int, rng: np.random.Generator
) -> float:
    """Add the gradient of one batch, each response masked anew; its loss in nats a token.

    Args:
        policy: the model.
        batch: token ids of a prompt and its response, and where the response starts.
        max_tokens: tokens of one forward pass.
        rng: draws the masks.
    """
    masks, weights = [], []
    for ids, start in batch:
        ((masked, weight),) = draw_masks(len(ids) - start, 1, "stratified", rng)
        masks.append(np.concatenate([np.zeros(start, dtype=np.bool_), masked]))
        weights.append(np.full(len(ids), weight / (len(ids) - start) / len(batch), dtype=np.float32))
    rows = Rows.of(policy.reading, [ids for ids, _ in batch], masks, masks)
    scale = torch.from_numpy(np.concatenate([policy.reading.by_row(one, 0) for one in weights])).to(policy.device)
    total = 0.0
    for pack in share(rows.lengths, 1, max_tokens)[0]:
        inputs = rows.inputs(pack, policy)
        logprobs, _ = policy(inputs.input_ids, inputs.layout, inputs.rows, inputs.targets)
        loss = -(logprobs * scale[inputs.scored]).sum()
        loss.backward()
        total += float(loss.detach())
    return total


def accuracy(
    policy: PolicyModel,
    checks: Sequence[Conversation],
    length: int,
    config: DiffusionConfig,
    stop_token_ids: Sequence[int],
) -> float:
    """Share of ``checks`` whose last turn the model, sampling at temperature 1, writes exactly."""
    block = BlockModel(policy.model)
    rows = [Row(one.input_ids[: one.last_turn], 1.0, seed) for seed, one in enumerate(checks)]
    try:
        samples = decode(block, rows, length, config, stop_token_ids)
    finally:
        policy.use_attention()
    right = [
        sample.token_ids.tolist()[: len(one.input_ids) - one.last_turn] == one.input_ids[one.last_turn :][:length]
        for sample, one in zip(samples, checks, strict=True)
    ]
    return sum(right) / len(right)


def as_example(conversation: Conversation, length: int, eos: int) -> tuple[NDArray[np.int32], int]:
    """Prompt and response, the latter cut or padded with end tokens to ``length``; and where it starts."""
    start = conversation.last_turn
    response = (conversation.input_ids[start:] + [eos] * length)[:length]
    return np.array([*conversation.input_ids[:start], *response], dtype=np.int32), start
