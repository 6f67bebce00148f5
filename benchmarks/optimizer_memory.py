"""Peak memory of a learning step by optimizer and layout, against arithmetic.

    rlpost bench optimizer_memory --out runs/optimizer_memory              # a GPU, 0.5 B weights, 3 minutes
    rlpost bench optimizer_memory --out /tmp/memory --device cpu --tiny    # does it run?

One sequence of 1,024 tokens a step (for ScaleBiO one of a source and one of the validation set, a pack each), gradient
checkpointing, bf16 compute, fp32 masters under FSDP2 as always; the peak is that of the fourth step. On a CPU the
peak is counted by torch's profiler, allocation by allocation. The prediction, in bytes, with P weights, E of them
embeddings (tied), L of a decoder layer, T trained at a time, S numbers of optimizer state, A of an adapter:

    held        4 P (masters; 2 P + 4 A with adapters) + 4 S
    head        held + 2 E gathered + 4 L gathered (two layers) + a tile of logits in fp32 and bf16 + 6 E gradient
    reduction   held + 4 (T - E) gradients of layers + 4 L + 12 E (FSDP2 reduces the root's gradient: in, out, scratch)
    optimizer   held + 4 T gradients + 8 E scratch of the largest matrix where it is not fused or compiled

and the peak is the largest of the last three; bf16 weights have masters and gradients of 2 bytes. Left out: several
ranks.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlpost.algorithms.registry import locate
from rlpost.benchmarks.harness import SHAPES, Results, model_folder, parser
from rlpost.bilevel.data import Corpus, Example
from rlpost.bilevel.finetune import batches
from rlpost.bilevel.learner import BilevelLearner, BilevelStep
from rlpost.learner.batch import LearnerSetup
from rlpost.learner.config import LearnerConfig, LoraConfig, OptimizerConfig
from rlpost.learner.learner import Learner
from rlpost.learner.logprobs import tile_rows

GIB = 2**30
STEPS = 4


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        name: of the row.
        optimizer: its keys.
        lora: rank of the adapters; 0: none.
        layout: of ScaleBiO; empty: a plain learner.
    """

    name: str
    optimizer: dict[str, Any] = field(default_factory=dict)
    lora: int = 0
    layout: str = ""


LISA: dict[str, Any] = {"name": "lisa", "options": {"layers": 2, "every": 1}}
CASES = (
    Case("AdamW, full"),
    Case("LISA, gamma 2", LISA),
    Case("LoRA, rank 16", lora=16),
    Case("APOLLO, rank 256", {"name": "apollo"}),
    Case("APOLLO-Mini", {"name": "apollo_mini"}),
    Case("Lion", {"name": "lion"}),
    Case("AdamW, bf16 weights (torchao)", {"name": "adamw_bf16"}),
    Case("AdamW, 8 bits (torchao)", {"name": "adamw_8bit"}),
    Case("ScaleBiO, adapters of rank 16", lora=16, layout="adapters"),
    Case("ScaleBiO, two copies", layout="two_copies"),
    Case("ScaleBiO, two copies with LISA", LISA, layout="two_copies"),
)


@dataclass(frozen=True)
class Sizes:
    """Numbers of weights of a shape."""

    every: int
    embedding: int
    layer: int
    layers: int
    matrices: tuple[tuple[int, int], ...]
    """(rows, columns) of a layer's matrices."""

    @classmethod
    def of(cls, shape: dict[str, Any]) -> Sizes:
        width, inner, count = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
        shared = width // shape["num_attention_heads"] * shape["num_key_value_heads"]
        matrices = ((width, width), (shared, width), (shared, width), (width, width)) + ((inner, width),) * 3
        layer = sum(rows * columns for rows, columns in matrices) + 4 * width + 2 * shared - width
        embedding = shape["vocab_size"] * width
        return cls(count * layer + embedding + width, embedding, layer + width - width, count, matrices)


def state_numbers(case: Case, sizes: Sizes, trained: int) -> float:
    """Numbers of optimizer state in fp32, of one model or adapter; 8-bit codes and their scales as what they hold."""
    name = case.optimizer.get("name", "adamw")
    if name == "lion":
        return trained
    if name == "adamw_8bit":
        return 2 * trained * (1 / 4 + 1 / 256)
    if not name.startswith("apollo"):
        return 2 * trained
    rank = 1 if name == "apollo_mini" else 256
    low = sum(2 * min(rank, *pair) * max(pair) for pair in sizes.matrices)
    vectors = sizes.layer - sum(rows * columns for rows, columns in sizes.matrices)
    return sizes.layers * (low + 2 * vectors) + 2 * sizes.embedding


def predict(case: Case, shape: dict[str, Any], length: int) -> dict[str, float]:
    """GiB: held between steps, and at the three moments that may be the peak."""
    sizes = Sizes.of(shape)
    adapter = sizes.layers * sum(case.lora * (rows + columns) for rows, columns in sizes.matrices)
    trained = adapter if case.lora else sizes.every
    if case.optimizer.get("name") == "lisa":
        trained = sizes.embedding + case.optimizer["options"]["layers"] * sizes.layer
    copies = 2 if case.layout == "two_copies" else 1
    sides = 2 if case.layout else 1
    width = 2 if case.optimizer.get("name") == "adamw_bf16" else 4
    masters = 2 * sizes.every + 4 * adapter * sides if case.lora else width * sizes.every * copies
    held = masters + 4 * sides * state_numbers(case, sizes, trained)
    embedding = 0 if case.lora else sizes.embedding
    logits = 4 * min(length, tile_rows(shape["vocab_size"])) * shape["vocab_size"]
    gathered = 2 * sizes.embedding + 4 * sizes.layer
    fused = case.optimizer.get("name", "adamw") in ("adamw", "lisa", "adamw_bf16", "adamw_8bit")
    moments = {
        "head": held + gathered + 1.5 * logits + 6 * embedding,
        "reduction": held + width * (trained - embedding) + (4 * sizes.layer + 12 * embedding if embedding else 0),
        "optimizer": held + width * trained + (0 if fused or case.lora else 8 * sizes.embedding),
    }
    return {"held_gib": held / GIB} | {f"{name}_gib": value / GIB for name, value in moments.items()}


def examples(count: int, length: int, vocabulary: int) -> list[Example]:
    """Random tokens, all but the first learned."""
    rng = np.random.default_rng(0)
    learned = np.arange(length) > 0
    return [Example(rng.integers(0, vocabulary, length).astype(np.int32), learned) for _ in range(count)]


def steps_of(case: Case, folder: Path, device: str, length: int, vocabulary: int) -> Iterator[Callable[[], object]]:
    """One call a step."""
    optimizer = OptimizerConfig(**({"lr": 1e-5} | case.optimizer))
    config = LearnerConfig(
        device=device,  # type: ignore[arg-type]
        dtype="bf16",
        gradient_checkpointing=True,
        max_tokens_per_pack=length,
        optimizer=optimizer,
        lora=LoraConfig(rank=case.lora) if case.lora else None,
    )
    own = {"sources": ["a", "b"], "validation": "v", "layout": case.layout or "adapters"}
    setup = LearnerSetup(folder, config, locate("scalebio"), own)
    made = examples(2, length, vocabulary)
    if case.layout:
        bilevel = BilevelLearner(setup, Corpus(["a", "b"], made, np.array([0, 1]), made, []))
        for step in range(STEPS):
            one = np.array([step % 2])
            yield lambda step=step, one=one: bilevel.step(BilevelStep(one, one, step, STEPS))
        bilevel.close()
        return
    learner = Learner(setup)
    batch = next(iter(batches(made[:1], 1, 0)))
    for step in range(STEPS):
        batch.step = step
        yield lambda: learner.learn(batch)
    learner.close()


def peak_of(run: Callable[[], object], device: str) -> int:
    """Bytes at the peak of one call: on a GPU all that is allocated, on a CPU what the call adds to what was there."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in _tree(profiler.profiler.kineto_results.experimental_event_tree()) if event is not None]
    total = peak = 0
    for _, size in sorted(events):
        total += size
        peak = max(peak, total)
    return peak


def _tree(events: Any) -> Iterator[tuple[int, int]]:
    for event in events:
        if event.name == "[memory]":
            yield event.start_time_ns, event.extra_fields.alloc_size
        yield from _tree(event.children)


def measure(case: Case, folder: Path, device: str, shape: dict[str, Any], length: int) -> dict[str, Any]:
    """The row of one case."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    peak = 0
    for run in steps_of(case, folder, device, length, shape["vocab_size"]):
        peak = peak_of(run, device)
    predicted = predict(case, shape, length)
    moment = max(predicted, key=lambda name: predicted[name])
    gib = peak / GIB + (predicted["held_gib"] if device == "cpu" else 0.0)
    return {
        "peak_gib": gib,
        "predicted_gib": predicted[moment],
        "measured / predicted": gib / predicted[moment],
        "peak at": moment.removesuffix("_gib"),
        **predicted,
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--shape", choices=sorted(SHAPES), default="0.5b")
    options.add_argument("--length", type=int, default=1024)
    options.add_argument("--only", help="cases whose name contains this")
    chosen = options.parse_args()
    shape = SHAPES[chosen.shape] if not chosen.tiny else SHAPES["0.5b"] | {
        "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 1024, "vocab_size": 8192,
    }  # fmt: skip
    SHAPES["chosen"] = shape
    length = min(chosen.length, 64) if chosen.tiny else chosen.length
    results = Results(
        "optimizer_memory", chosen.out, {"shape": "tiny" if chosen.tiny else chosen.shape, "tokens": length}
    )
    with tempfile.TemporaryDirectory() as place:
        folder = model_folder("chosen", Path(place), chosen.device)
        for case in CASES:
            if chosen.only is None or chosen.only in case.name:
                results.attempt(case.name, lambda case=case: measure(case, folder, chosen.device, shape, length))


if __name__ == "__main__":
    main()
