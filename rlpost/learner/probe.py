"""Is this model one whose log-probabilities we compute exactly? Asked once, at load, in fp32.

64 random tokens go through the model's own forward pass, plain attention and full logits, and through ours, tiled and
packed. A model that disagrees (a bias or a cap on its logits, layers that carry a state across sequences) is refused
with the reason, because training on log-probabilities that are a little wrong fails silently. Left out: a slower exact
path for such models.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlpost.learner.attention import NAME
from rlpost.learner.errors import ModelRefused
from rlpost.learner.policy import PolicyModel
from rlpost.rollout.diffusion.states import IMPOSSIBLE

TOLERANCE = 1e-3
"""Largest difference of a log-probability or entropy, in nats, in fp32; agreeing models stay below 1e-4."""

KERNEL_TOLERANCE = 0.1
"""Largest mean difference of log-probs between two attention kernels in bf16, in nats; seen: 0.02."""

_SPLIT = 40  # 64 tokens as sequences of 40 and 24


@torch.no_grad()
def check(policy: PolicyModel) -> None:
    """Compare tiled with own logits on one sequence, then two packed sequences with each alone.

    Raises:
        ModelRefused: they differ by more than ``TOLERANCE``; the message says what differs and the likely reason.
    """
    model = policy.model
    _refuse_known(model)
    ids = _probe_ids(policy)
    first, second = ids[:_SPLIT], ids[_SPLIT:]
    own = [_own_scores(policy, part) for part in (ids, first, second)]
    try:
        alone, together = _tiled_scores(policy, [ids]), _tiled_scores(policy, [first, second])
    except ModelRefused:
        raise
    except Exception as error:
        raise ModelRefused(
            f"{type(model).__name__} does not run on packed sequences: {type(error).__name__}: {error}"
        ) from error
    _compare(
        model, alone, own[0], "tiled log-probs and the model's own logits", "its logits are scaled, capped or shifted"
    )
    _compare(
        model,
        together,
        torch.cat(own[1:], dim=1),
        "two packed sequences and each alone",
        "a layer carries state from one sequence into the next",
    )


@torch.no_grad()
def kernel_agrees(policy: PolicyModel) -> bool:
    """Whether the variable-length kernel runs for this model (it does not for every size of head) and gives the numbers
    of padded rows, up to the compute dtype. A collective where the model is sharded; the policy is left as it was."""
    ids = _probe_ids(policy)
    kept, scores = policy.padded, []
    try:
        for policy.padded in (True, False):
            scores.append(_tiled_scores(policy, [ids[:_SPLIT], ids[_SPLIT:]])[0])
    except RuntimeError:
        return False
    finally:
        policy.padded = kept
        policy.settle()
    return float((scores[0] - scores[1]).abs().mean()) <= KERNEL_TOLERANCE


def _probe_ids(policy: PolicyModel) -> Tensor:
    """(64,) random token ids, the same for every model of a vocabulary size; none is a mask token, which is never
    predicted."""
    vocabulary = policy.model.config.get_text_config().vocab_size
    ids = torch.randint(vocabulary, (64,), generator=torch.Generator().manual_seed(0))
    if policy.reading.mask_token_id is not None:
        ids[ids == policy.reading.mask_token_id] = int(policy.reading.mask_token_id == 0)
    return ids.to(policy.device)


def _refuse_known(model: PreTrainedModel) -> None:
    """What an untrained or weak probe could miss."""
    head = model.get_output_embeddings()
    if head is None:
        raise ModelRefused(f"{type(model).__name__} has no output head, so it is not a language model")
    if getattr(head, "bias", None) is not None:
        raise ModelRefused(f"the output head of {type(model).__name__} has a bias, which tiled log-probs leave out")
    cap = getattr(model.config, "final_logit_softcapping", None)
    if cap is not None:
        raise ModelRefused(f"{type(model).__name__} caps its logits at {cap}, which tiled log-probs leave out")


def _own_scores(policy: PolicyModel, ids: Tensor) -> Tensor:
    """(2, n): at each row the log-prob of the next token (the last row's is the first) and the entropy, from full
    logits and transformers' plain attention."""
    model, never = policy.model, policy.reading.mask_token_id
    model.set_attn_implementation("eager")
    try:
        logits = model(input_ids=ids[None], use_cache=False).logits[0].float()
    finally:
        model.set_attn_implementation(NAME)
    if never is not None:
        logits[:, never] = IMPOSSIBLE
    logprobs = torch.log_softmax(logits, dim=-1)
    return torch.stack([logprobs.gather(1, ids.roll(-1)[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)])


def _tiled_scores(policy: PolicyModel, sequences: list[Tensor]) -> Tensor:
    """The same through ours, sequences packed into one row."""
    row = torch.cat(sequences)[None]
    targets = torch.cat([ids.roll(-1) for ids in sequences])
    rows = torch.arange(len(targets), device=policy.device)
    return torch.stack(policy(row, policy.layout([len(ids) for ids in sequences]), rows, targets))


def _compare(model: PreTrainedModel, ours: Tensor, own: Tensor, what: str, reason: str) -> None:
    difference = float((ours - own).abs().max())
    if not difference <= TOLERANCE:
        raise ModelRefused(
            f"{type(model).__name__} is refused: {what} differ by {difference:.2g} nats (at most {TOLERANCE:g} is "
            f"accepted); most likely {reason}"
        )
