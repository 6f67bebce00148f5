"""Is this model one whose log-probabilities we compute exactly? Asked at load, of any model, tried before or not.

Random tokens, in sequences of several lengths (one token, 64, past every window and chunk, the longest of the run), go
through the model's own forward pass, plain attention and full logits, each alone; and through ours, tiled, alone and
all together. In fp32 at first; then once more as the policy will be trained: sharded, with adapters, in its dtype (but
before layers are compiled, which takes a minute at the first step, not here). A model that disagrees is computed more
slowly (own_forward.py) or refused with the reason, because training on log-probabilities that are a little wrong fails
silently. Left out: lengths whose plain attention would take too long or too much memory here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlpost.learner.errors import ModelRefused
from rlpost.learner.logprobs import Logits
from rlpost.learner.policy import PolicyModel, body_of
from rlpost.rollout.diffusion.states import IMPOSSIBLE

TOLERANCE = 1e-3
"""Largest difference of a log-probability or entropy, in nats, in fp32; agreeing models stay below 1e-4."""

KERNEL_TOLERANCE = 0.1
"""Largest mean difference of log-probs between two attention kernels in bf16, in nats; seen: 0.02."""
DTYPE_TOLERANCE = 0.2
"""Largest mean difference of log-probs in bf16 from those in fp32, in nats; seen: 0.003 to 0.03, of one mixture 0.1."""

_SHORT = 64
_PAST = 24  # tokens beyond a window
_FLOPS = {"cpu": 1e11, "cuda": 1e14}  # of one forward pass: a few seconds on two cores
_SCORES = {"cpu": 1 << 28, "cuda": 1 << 30}  # elements of one layer's plain attention scores, and of all logits


@dataclass(frozen=True, slots=True)
class Reference:
    """What the model itself says.

    Attributes:
        sequences: (L,) token ids each.
        scores: (2, L) each, fp32: at each row the log-prob of the next token (the last row's is the first), and the
            entropy.
        logits: what the model does to its head's product.
    """

    sequences: list[Tensor]
    scores: list[Tensor]
    logits: Logits


@torch.no_grad()
def reference(policy: PolicyModel, max_context: int | None = None) -> Reference:
    """The model's own scores, in fp32 and with plain attention.

    Args:
        policy: its model, as it was loaded.
        max_context: tokens of the run's longest sequence, where that is known.

    Raises:
        ModelRefused: it has no output head.
    """
    head = policy.model.get_output_embeddings()
    if head is None:
        raise ModelRefused(f"{type(policy.model).__name__} has no output head, so it is not a language model")
    sequences = [_probe_ids(policy, length) for length in probe_lengths(policy.model, max_context)]
    with _plain_attention(policy):
        logits = [policy.model(input_ids=ids[None], use_cache=False).logits[0].float() for ids in sequences]
        longest = max(range(len(sequences)), key=lambda index: min(len(sequences[index]), _SHORT))
        hidden = body_of(policy.model)(input_ids=sequences[longest][None], use_cache=False)[0][0]
    shape = _shape(policy.model, head, hidden, logits[longest])
    scores = [_scores(one, ids, policy.reading.mask_token_id) for one, ids in zip(logits, sequences, strict=True)]
    return Reference(sequences, scores, shape)


@torch.no_grad()
def check(policy: PolicyModel, own: Reference) -> None:
    """Compare tiled with own logits, each sequence alone, then all of them together; in fp32.

    Raises:
        ModelRefused: they differ by more than ``TOLERANCE``; the message says what differs and in which layer first.
    """
    policy.logits = own.logits
    name = type(policy.model).__name__
    try:
        alone = [_tiled_scores(policy, [ids]) for ids in own.sequences]
        together = _tiled_scores(policy, own.sequences)
    except ModelRefused:
        raise
    except Exception as error:
        raise ModelRefused(f"{name} does not run this way: {type(error).__name__}: {_first_line(error)}") from error
    for ids, ours, theirs in zip(own.sequences, alone, own.scores, strict=True):
        if not (worst := _largest(ours, theirs)) <= TOLERANCE:
            raise ModelRefused(
                f"log-probs of {len(ids)} tokens and the model's own logits differ by {worst:.2g} nats (at most "
                f"{TOLERANCE:g} is accepted), {_where(policy, ids)}"
            )
    if not (worst := _largest(together, torch.cat(own.scores, dim=1))) <= TOLERANCE:
        lengths = ", ".join(str(len(ids)) for ids in own.sequences)
        raise ModelRefused(
            f"sequences of {lengths} tokens computed together and each alone differ by {worst:.2g} nats (at most "
            f"{TOLERANCE:g} is accepted): a layer carries state from one sequence into the next, or what it computes "
            "depends on the longest sequence beside it"
        )


@torch.no_grad()
def confirm(policy: PolicyModel, own: Reference) -> None:
    """Compare once more as the policy will be trained, in its dtype, twice over. A collective where it is sharded.

    Raises:
        ModelRefused: two passes with the same weights differ, or the scores are not the model's own.
    """
    name = type(policy.model).__name__
    first, second = (_tiled_scores(policy, own.sequences) for _ in range(2))
    policy.settle()
    apart = float((first - second).abs().mean())
    if apart > (0.0 if policy.device.type == "cpu" else TOLERANCE):
        raise ModelRefused(
            f"{name} is refused: two scorings with the same weights differ by {apart:.2g} nats in the mean; something "
            "in its forward pass is random (a dropout or a jitter that its configuration does not name)"
        )
    theirs = torch.cat(own.scores, dim=1).to(first.device)
    exact = policy.compute in (torch.float32, torch.float64)
    worst = _largest(first, theirs) if exact else float((first - theirs)[0].abs().mean())
    most = TOLERANCE if exact else DTYPE_TOLERANCE
    if not worst <= most:
        how = "at most" if exact else "in the mean"
        dtype = str(policy.compute).removeprefix("torch.")
        raise ModelRefused(
            f"{name} is refused: as it is to be trained, in {dtype}, its log-probs differ from its own logits in fp32 "
            f"by {worst:.2g} nats {how} ({most:g} is accepted)"
        )


@torch.no_grad()
def kernel_agrees(policy: PolicyModel) -> bool:
    """Whether the variable-length kernel runs for this model (it does not for every size of head) and gives the numbers
    of padded rows, up to the compute dtype. A collective where the model is sharded; the policy is left as it was."""
    ids = _probe_ids(policy, _SHORT)
    kept, scores = policy.padded, []
    try:
        for policy.padded in (True, False):
            scores.append(_tiled_scores(policy, [ids[:40], ids[40:]])[0])
    except RuntimeError:
        return False
    finally:
        policy.padded = kept
        policy.settle()
    return float((scores[0] - scores[1]).abs().mean()) <= KERNEL_TOLERANCE


def probe_lengths(model: PreTrainedModel, max_context: int | None) -> list[int]:
    """Lengths of the sequences compared: 1, 64, a little past each window or chunk that the run can reach, and
    ``max_context``; as far as plain attention over them is affordable here."""
    config, device = model.config.get_text_config(), next(model.parameters()).device.type
    weights = sum(weight.numel() for weight in model.parameters())
    heads = getattr(config, "num_attention_heads", None) or 1
    room = min(math.isqrt(_SCORES[device] // heads), _SCORES[device] // config.vocab_size)
    most = max(_SHORT, min(int(_FLOPS[device] / (2 * weights)), room))
    if max_context is not None:
        most = min(most, max_context)
    if positions := getattr(config, "max_position_embeddings", None):
        most = min(most, positions)
    names = ("sliding_window", "attention_chunk_size", "window_size", "sliding_window_size")
    windows = [size for name in names if isinstance(size := getattr(config, name, None), int) and size > 0]
    wanted = {1, _SHORT, *(size + _PAST for size in windows), *([] if max_context is None else [max_context])}
    return sorted({min(length, most) for length in wanted})


def _probe_ids(policy: PolicyModel, length: int) -> Tensor:
    """(length,) random token ids, the same for every model of a vocabulary size; none is a mask token, which is never
    predicted."""
    vocabulary = policy.model.config.get_text_config().vocab_size
    ids = torch.randint(vocabulary, (length,), generator=torch.Generator().manual_seed(length))
    if policy.reading.mask_token_id is not None:
        ids[ids == policy.reading.mask_token_id] = int(policy.reading.mask_token_id == 0)
    return ids.to(policy.device)


@contextmanager
def _plain_attention(policy: PolicyModel) -> Iterator[None]:
    policy.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        policy.use_attention()


def _shape(model: PreTrainedModel, head: Any, hidden: Tensor, logits: Tensor) -> Logits:
    """What turns the head's product into logits: a cap is in the configuration, a scale is read off the numbers, since
    every architecture has a name of its own for it. Anything else, the comparison finds."""
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if cap is not None:
        return Logits(cap=float(cap))
    product = nn.functional.linear(hidden, head.weight, getattr(head, "bias", None)).double()
    if product.shape != logits.shape:
        return Logits()
    scale = float((product * logits).sum() / product.square().sum().clamp_min(1e-30))
    return Logits() if abs(scale - 1) < 1e-5 or not scale > 0 else Logits(scale)


def _scores(logits: Tensor, ids: Tensor, never: int | None) -> Tensor:
    """(2, L) of (L, V) logits."""
    if never is not None:
        logits[:, never] = IMPOSSIBLE
    logprobs = torch.log_softmax(logits, dim=-1)
    return torch.stack([logprobs.gather(1, ids.roll(-1)[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)])


def _tiled_scores(policy: PolicyModel, sequences: list[Tensor]) -> Tensor:
    """The same through ours, sequences in one pack."""
    sequences = [ids.to(policy.device) for ids in sequences]  # loaded on the CPU where it is sharded afterwards
    row = torch.cat(sequences)[None]
    targets = torch.cat([ids.roll(-1) for ids in sequences])
    rows = torch.arange(len(targets), device=policy.device)
    return torch.stack(policy(row, policy.layout([len(ids) for ids in sequences]), rows, targets))


def _largest(ours: Tensor, own: Tensor) -> float:
    return float((ours - own).abs().max())


def _where(policy: PolicyModel, ids: Tensor) -> str:
    """Which layer is the first whose output is not the model's own."""
    ours = _outputs(policy, lambda: _tiled_scores(policy, [ids]))
    with _plain_attention(policy):
        own = _outputs(policy, lambda: policy.model(input_ids=ids[None], use_cache=False))
    for name, states in own.items():
        if name in ours and states.numel() == ours[name].numel():
            apart = float((states.flatten() - ours[name].flatten()).abs().max())
            if not apart <= TOLERANCE * max(1.0, float(states.abs().max())):
                return f"beginning with what layer '{name}' computes"
    return "though all layers agree: what stands behind the last of them (the output head, its scale or its cap)"


def _outputs(policy: PolicyModel, run: Any) -> dict[str, Tensor]:
    """What each decoder layer gives, by its name."""
    found: dict[str, Tensor] = {}
    names = {id(module): name for name, module in policy.model.named_modules()}

    def keep(layer: nn.Module, _: Any, output: Any) -> None:
        found[names[id(layer)]] = (output if isinstance(output, Tensor) else output[0]).detach().clone()

    handles = [layer.register_forward_hook(keep) for layer in policy.layers()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
