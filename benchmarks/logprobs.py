"""(d) Log-probabilities and entropies of the output head, forward and backward: time and peak memory of every way.

    rlpost bench logprobs --out DIR                     # one minute on an H100
    rlpost bench logprobs --out DIR --device cpu --tiny

Contestants, on the same (N, d) hidden states and (V, d) head with gradients for both: ``tiled`` is rlpost's; ``eager
tiles`` the same without its fused kernels; ``naive`` makes all logits, in fp32, and lets autograd do the rest;
``compiled`` is naive under torch.compile; ``liger`` is Liger's fused linear cross-entropy, which gives no entropy.
Each row also has the largest difference of its log-probs from fp64 on the first rows. Peak memory is above what was
allocated before the forward pass. Left out: the model below the head.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlpost.benchmarks.harness import Results, median, parser

Way = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor | None]]
TEMPERATURE = 0.9


def naive(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """All logits at once."""
    logs = torch.log_softmax((hidden @ weight.t()).float() / TEMPERATURE, dim=-1)
    return logs.gather(1, targets[:, None])[:, 0], -(logs.exp() * logs).sum(-1)


def tiled(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """rlpost's."""
    from rlpost.learner.logprobs import tile_rows, tiled_logprobs

    return tiled_logprobs(hidden, weight, targets, TEMPERATURE, tile_rows(weight.shape[0]))


def eager_tiles(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """rlpost's, in plain torch."""
    from rlpost.learner import logprob_kernels

    fused = logprob_kernels.available
    logprob_kernels.available = lambda *_: False  # type: ignore[assignment]
    try:
        return tiled(hidden, weight, targets)
    finally:
        logprob_kernels.available = fused


def liger(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, None]:
    """Gradients are made in its forward pass."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    loss = liger_fused_linear_cross_entropy(
        hidden / TEMPERATURE, weight, targets, reduction="sum", accum_dtype=torch.float32
    )
    return -(loss[0] if isinstance(loss, tuple) else loss), None


WAYS: dict[str, Callable[[], Way]] = {
    "tiled": lambda: tiled,
    "naive": lambda: naive,
    "eager tiles": lambda: eager_tiles,
    "compiled": lambda: torch.compile(naive),
    "liger": lambda: liger,
}


def measure(way: Way, args: argparse.Namespace) -> dict[str, Any]:
    """Medians of rounds after the warm-up."""
    on_gpu = args.device == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    generator = torch.Generator(args.device).manual_seed(0)
    hidden = torch.randn(args.rows, args.width, generator=generator, device=args.device).to(dtype).requires_grad_()
    weight = torch.randn(args.vocabulary, args.width, generator=generator, device=args.device)
    weight = (weight * 0.05).to(dtype).requires_grad_()
    targets = torch.randint(args.vocabulary, (args.rows,), generator=generator, device=args.device)
    forward, whole, peaks = [], [], []
    for _ in range(args.warm_up + args.rounds):
        hidden.grad = weight.grad = None
        before = _settle(on_gpu)
        began = time.perf_counter()
        logprob, entropy = way(hidden, weight, targets)
        _wait(on_gpu)
        forward.append(time.perf_counter() - began)
        (logprob.sum() if entropy is None else logprob.sum() + 0.01 * entropy.sum()).backward()
        _wait(on_gpu)
        whole.append(time.perf_counter() - began)
        peaks.append((torch.cuda.max_memory_allocated() - before) / 2**30 if on_gpu else float("nan"))
    row = {"ms": 1e3 * median(whole[args.warm_up :]), "forward_ms": 1e3 * median(forward[args.warm_up :])}
    if on_gpu:
        row["peak_gib"] = max(peaks[args.warm_up :])
    if entropy is not None:
        some = 64
        with torch.no_grad():
            exact = torch.log_softmax(hidden[:some].double() @ weight.double().t() / TEMPERATURE, -1)
        row["logprob_error"] = float(
            (logprob[:some].detach() - exact.gather(1, targets[:some, None])[:, 0]).abs().max()
        )
        row["entropy_error"] = float((entropy[:some].detach() + (exact.exp() * exact).sum(-1)).abs().max())
    return row


def _settle(on_gpu: bool) -> int:
    if not on_gpu:
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _wait(on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.synchronize()


def main() -> None:
    """Each way in turn, then the ratios of naive to tiled."""
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=8192)
    made.add_argument("--vocabulary", type=int, default=151_936)
    made.add_argument("--width", type=int, nargs="+", default=[896, 1536])
    made.add_argument("--rounds", type=int, default=10)
    made.add_argument("--warm-up", type=int, default=3)
    args = made.parse_args()
    if args.tiny:
        args.rows, args.vocabulary, args.width, args.rounds, args.warm_up = 256, 2000, [64], 3, 1
    results = Results("logprobs", args.out, {"rows": args.rows, "vocabulary": args.vocabulary})
    for width in args.width:
        one = argparse.Namespace(**vars(args) | {"width": width})
        for name, way in WAYS.items():
            results.attempt(f"{name}, d {width}", lambda way=way, one=one: measure(way(), one))
            if args.device == "cuda":
                torch.cuda.empty_cache()
        rows = {row["part"].split(",")[0]: row for row in results.rows if row["part"].endswith(f"d {width}")}
        ours, plain = rows["tiled"], rows["naive"]
        if "ms" in ours and "ms" in plain:
            ratios = {"tiled_ms_over_naive": ours["ms"] / plain["ms"]}
            if "peak_gib" in ours:
                ratios["naive_peak_over_tiled"] = plain["peak_gib"] / ours["peak_gib"]
            results.add(part=f"ratios, d {width}", **ratios)


if __name__ == "__main__":
    main()
