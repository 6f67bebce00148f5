"""What ``rlpost bench models`` asks of one family, in processes of its own: the learner, two ranks, and two engines.

Each check gives the largest difference it found, in nats (in bf16 the mean), or the reason for which the model was
refused. Processes are forked from one that has imported everything, so a family takes seconds, and a crash takes one
row with it. Left out: which families there are (model_families.py) and the table (models.py).
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.utils import logging

from rlpost.algorithms.base import Algorithm, LossOutput, PackedViews, StepConstants
from rlpost.benchmarks.model_families import VOCABULARY, context_of, own_attention, write_family
from rlpost.learner.batch import LearnerSetup, StepBatch
from rlpost.learner.config import LearnerConfig, LoraConfig, OptimizerConfig
from rlpost.learner.errors import ModelError
from rlpost.learner.learner import Learner
from rlpost.learner.lora import linear_layers
from rlpost.learner.rotary import freeze_rotary
from rlpost.rollout.digest import mismatches
from rlpost.rollout.engine import EngineError
from rlpost.rollout.trajectory import StopReason, Trajectory, Turn
from rlpost.rollout.vllm.config import VllmConfig
from rlpost.rollout.weight_update import Adapters, WeightUpdate

Logprobs = list[NDArray[np.float32]]
EXACT, ROUNDED = 1e-3, 0.1
"""Accepted differences, in nats: the largest one in fp32, the mean in bf16."""
DESCENT = OptimizerConfig(name="torch.optim:SGD", lr=0.02, clip_grad=0.0)


class Refused(Exception):
    """The model is refused, with the reason."""


@dataclass(frozen=True, slots=True)
class Task:
    """One family on one device.

    Attributes:
        family: its name.
        folder: where its model and its checkpoint go.
        device, dtype: of learner and engine; ranks always compute on the CPU, in fp32.
    """

    family: str
    folder: Path
    device: str
    dtype: str

    @property
    def context(self) -> int:
        """Tokens of the longest sequence."""
        return context_of(self.family)

    def sequences(self) -> list[list[int]]:
        """Random tokens, below and above windows, chunks and original contexts."""
        draw = np.random.default_rng(0)
        lengths = (2, 7, self.context // 4, self.context // 2, self.context - 1)
        return [draw.integers(3, VOCABULARY, length).tolist() for length in lengths]


class PolicyGradient(Algorithm):
    """The plainest there is."""

    def loss(self, views: PackedViews, constants: StepConstants) -> LossOutput:
        """-A log p, token mean."""
        return LossOutput(-(views.logprobs * views.advantages * views.mask).sum() / constants.tokens, {})


def batch_of(task: Task) -> StepBatch:
    """Random trajectories, one a sequence; the first half of each is its prompt."""
    made = []
    for index, tokens in enumerate(task.sequences()):
        start = len(tokens) // 2
        mask = np.arange(len(tokens)) >= start
        made.append(
            Trajectory(
                token_ids=np.array(tokens, dtype=np.int32),
                policy_mask=mask,
                rollout_logprobs=np.where(mask, -1.0, np.nan).astype(np.float32),
                versions=np.where(mask, 0, -1).astype(np.int32),
                turns=[Turn(start, len(tokens))],
                reward=0.0,
                reward_parts={},
                success=False,
                stop=StopReason.DONE,
                task_id="0",
                group_id=0,
                index=index,
                seed=0,
            )
        )
    advantages = np.array([1.0, -1.0, 0.5, -0.5, 0.25])
    return StepBatch(made, advantages, np.zeros(len(made), dtype=np.int64), 0, 10, len(made), task.context)


def learner_of(task: Task, rank: int = 0, world: int = 1, **changes: Any) -> Learner:
    """A learner of the family's model; refusals become ``Refused``."""
    meet = f"file://{task.folder / 'meet'}" if world > 1 else ""
    device, dtype = ("cpu", "fp32") if world > 1 else (task.device, task.dtype)
    config = LearnerConfig(device=device, dtype=dtype, optimizer=DESCENT, max_tokens_per_pack=1024, **changes)
    setup = LearnerSetup(task.folder, config, rendezvous=meet, collective_timeout_s=120.0, max_context=task.context)
    try:
        return Learner(setup, rank, world, PolicyGradient())
    except ModelError as error:
        raise Refused(str(error)) from error


# ------------------------------------------------------------------------------------------------- the engine's process


def spoilt(report: Connection) -> None:
    """Tell whether this process was forked from one that had touched a GPU already."""
    report.send(torch.cuda._is_in_bad_fork())


@dataclass(frozen=True, slots=True)
class Start:
    """The folder that an engine starts from, and the adapters it will be sent."""

    folder: Path
    adapters: Adapters | None = None


def serve(task: Task, place: str, ends: Connection) -> None:
    """An engine that starts from the folder it is sent; then an update or a probe a message, until None."""
    asyncio.run(_serve(task, place, ends))


async def _serve(task: Task, place: str, ends: Connection) -> None:
    from rlpost.rollout.vllm.engine import VllmEngine

    engine: Any = None
    while (message := ends.recv()) is not None:
        try:
            if isinstance(message, Start):
                config = VllmConfig(
                    dtype=task.dtype, slots=8, kv_cache_gib=0.25, gpu_memory_utilization=0.05, enforce_eager=True
                )
                engine = VllmEngine(
                    str(message.folder), config, task.context, [1], version=0, adapters=message.adapters
                )
                answer: Any = None
            elif isinstance(message, WeightUpdate):
                answer = await engine.update_weights(message)
            else:
                answer = (await engine.probe(message, 1.0, 0)).fixed_logprobs
        except Exception as error:
            answer = Refused(f"{place}: {_reason(error)}")
            if engine is None and not isinstance(message, Start):
                answer = Refused(f"{place}: it did not start")
        ends.send(answer)


def _reason(error: BaseException) -> str:
    """The innermost cause, in one line."""
    while error.__cause__ is not None and not isinstance(error, EngineError):
        error = error.__cause__
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()] or [""]
    return " ".join(lines)[:400] if isinstance(error, EngineError) else f"{type(error).__name__}: {lines[0]}"[:400]


@dataclass(slots=True)
class RemoteEngine:
    """The learner's end of it."""

    ends: Connection

    def ask(self, message: Any, limit_s: float = 240.0) -> Any:
        """Its answer. Raises Refused."""
        self.ends.send(message)
        try:
            if not self.ends.poll(limit_s):
                raise Refused(f"vLLM gave no answer within {limit_s:.0f} s")
            answer = self.ends.recv()
        except EOFError as error:
            raise Refused("vLLM's process ended") from error
        if isinstance(answer, Refused):
            raise answer
        return answer


# ------------------------------------------------------------------------------------------------ the learner's process


def examine(task: Task, report: Connection, engines: Sequence[Connection]) -> None:
    """All of a family's cells, one after another; each is reported as ``(column, text)`` when it is there."""

    def cell(column: str, check: Callable[[], str]) -> None:
        try:
            text = check()
        except Refused as refusal:
            text = f"refused: {refusal}"
        except Exception as error:
            traceback.print_exc()
            text = f"FAILED: {type(error).__name__}: {_reason(error)}"
        report.send((column, text))

    logging.disable_progress_bar()
    torch.set_num_threads(1)  # no threads of OpenMP before the ranks are forked
    write_family(task.family, task.folder)
    cell("several ranks", lambda: ranks_agree(task))
    torch.set_num_threads(2)
    first, second, third = (RemoteEngine(ends) for ends in engines)
    cell("learner exact", lambda: learner_exact(task, report))
    cell("packed exact", lambda: packed_exact(task))
    cell("engine after two publications", lambda: engine_agrees(task, first))
    cell("LoRA", lambda: lora_agrees(task, third))
    cell("checkpoint", lambda: checkpoint_loads(task, second))
    for engine in (first, second, third):
        engine.ends.send(None)
    report.send(None)


def verdict(task: Task, ours: Logprobs, theirs: Logprobs, moved: float | None = None) -> str:
    """ "right (difference)", or "WRONG"; a difference is also wrong where it is not far below what an update moves."""
    apart = np.concatenate([np.abs(a - b) for a, b in zip(ours, theirs, strict=True)])
    exact = task.dtype == "fp32"
    found, most = (float(apart.max()), EXACT) if exact else (float(apart.mean()), ROUNDED)
    words = "right" if found <= most and (moved is None or found < 0.25 * moved) else "WRONG"
    against = "" if moved is None else f" of {moved:.2g}"
    return f"{words} ({found:.1g}{against})"


def own_logprobs(task: Task, folder: Path, strict: bool = False) -> Logprobs:
    """transformers' own, in fp32, from full logits and plain attention, each sequence alone."""
    from transformers import AutoModelForCausalLM

    model, notes = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=own_attention(task.family), output_loading_info=True
    )
    if strict and (wrong := [f"{kind}: {names}" for kind, names in notes.items() if names]):
        raise RuntimeError(f"transformers loads the checkpoint with {'; '.join(map(str, wrong))}"[:300])
    freeze_rotary(model, task.context)
    model.to(task.device).eval()
    found = []
    with torch.no_grad():
        for tokens in task.sequences():
            ids = torch.tensor([tokens], device=task.device)
            logs = torch.log_softmax(model(ids, use_cache=False).logits[0, :-1].float(), -1)
            found.append(logs.gather(1, ids[0, 1:, None])[:, 0].cpu().numpy())
    return found


def perturb(learner: Learner, seed: int, least: float = 1e-3) -> None:
    """Move every trained weight, as updates would, a twentieth of its own spread and ``least``."""
    with torch.no_grad():
        for index, (_, weight) in enumerate(learner.policy.trainable()):
            own = weight.to_local() if hasattr(weight, "to_local") else weight
            generator = torch.Generator().manual_seed(1000 * seed + index)
            noise = torch.randn(own.shape, generator=generator).to(own)
            own.add_(noise * (0.05 * own.float().std(correction=0) + least))


def learner_exact(task: Task, report: Connection) -> str:
    """Each sequence alone, recomputed layers and all, against the model's own logits; and which way it is computed."""
    learner = learner_of(task, gradient_checkpointing=True)
    policy = learner.policy
    report.send(("path", "packed" if policy.packs else f"rows, {policy.attention}"))
    ours = [learner.score([tokens])[0] for tokens in task.sequences()]
    return verdict(task, ours, own_logprobs(task, task.folder))


def packed_exact(task: Task) -> str:
    """All sequences together against each alone."""
    learner = learner_of(task)
    return verdict(task, learner.score(task.sequences()), [learner.score([tokens])[0] for tokens in task.sequences()])


def engine_agrees(task: Task, engine: RemoteEngine) -> str:
    """At the start, and after each of two publications of moved weights; the worst of the three."""
    learner = learner_of(task)
    engine.ask(Start(task.folder))
    before = learner.score(task.sequences())
    words = [verdict(task, before, theirs := engine.ask(task.sequences()))]
    if "WRONG" in words[0]:
        limit = EXACT if task.dtype == "fp32" else ROUNDED
        apart = {len(b) + 1: np.abs(a - b) for a, b in zip(before, theirs, strict=True)}
        wrong = [length for length, one in apart.items() if (one.max() if limit == EXACT else one.mean()) > limit]
        raise Refused(
            f"vLLM computes another model than transformers before anything is published: log-probs differ by up to "
            f"{max(float(one.max()) for one in apart.values()):.2g} nats, in sequences of {_listed(wrong)} tokens"
        )
    for version in (1, 2):
        perturb(learner, version)
        after = learner.score(task.sequences())
        moved = float(np.mean([np.abs(a - b).mean() for a, b in zip(after, before, strict=True)]))
        publish(learner, engine, version)
        words.append(verdict(task, after, engine.ask(task.sequences()), moved))
        before = after
    return next((word for word in words if "WRONG" in word), words[-1])


def publish(learner: Learner, engine: RemoteEngine, version: int) -> None:
    """Hand the learner's weights over, and see that the engine then holds them bit for bit.

    Raises:
        RuntimeError: it does not.
    """
    held = engine.ask(learner.weights(version))
    if wrong := mismatches(learner.sent(version), held):
        raise RuntimeError(f"the engine does not hold what was sent: {wrong[0]} ({len(wrong)} tensors)")


def _listed(lengths: Sequence[int]) -> str:
    return ", ".join(str(length) for length in lengths)


def lora_agrees(task: Task, engine: RemoteEngine) -> str:
    """Adapters on every linear layer, moved from their start, published and served unmerged."""
    plain = learner_of(task)
    experts = [name for name, weight in plain.policy.plain_weights() if weight.ndim == 3]
    short = {name: name.rsplit(".", 1)[-1] for name in linear_layers(plain.policy.model)}
    taken = {last for last in short.values() if any(name.endswith(f".{last}") for name in experts)}
    targets = tuple(sorted({".".join(n.split(".")[-2:]) if last in taken else last for n, last in short.items()}))
    learner = learner_of(task, lora=LoraConfig(rank=4, alpha=8, targets=targets))
    before = learner.score(task.sequences())
    perturb(learner, 3, least=0.05)  # half of an adapter is zero at its start
    after = learner.score(task.sequences())
    moved = float(np.mean([np.abs(a - b).mean() for a, b in zip(after, before, strict=True)]))
    engine.ask(Start(task.folder, Adapters(4, targets)))
    publish(learner, engine, 3)
    return verdict(task, after, engine.ask(task.sequences()), moved)


def checkpoint_loads(task: Task, engine: RemoteEngine) -> str:
    """A checkpoint of moved weights, loaded by transformers and by vLLM."""
    learner = learner_of(task)
    perturb(learner, 4)
    folder = task.folder / "checkpoint"
    learner.save(folder)
    ours = learner.score(task.sequences())
    by_transformers = verdict(task, ours, own_logprobs(task, folder, strict=True))
    try:
        engine.ask(Start(folder))
        by_vllm = verdict(task, ours, engine.ask(task.sequences()))
    except Refused as refusal:
        by_vllm = f"refused: {refusal}"
    return f"transformers {by_transformers}, vLLM {by_vllm}"


def ranks_agree(task: Task) -> str:
    """One learning step by two ranks (gloo, on the CPU, fp32) against the same by one."""
    context = get_context("fork")  # this process has neither threads nor a GPU yet
    pipes = [context.Pipe() for _ in range(3)]
    places = [(0, 2), (1, 2), (0, 1)]
    processes = [
        context.Process(target=_learned, args=(task, rank, world, theirs), daemon=True)
        for (rank, world), (_, theirs) in zip(places, pipes, strict=True)
    ]
    for process in processes:
        process.start()
    answers = []
    for ours, theirs in pipes:
        theirs.close()
        try:
            answers.append(ours.recv() if ours.poll(150.0) else RuntimeError("a rank gave no answer within 150 s"))
        except EOFError:
            answers.append(RuntimeError("a rank's process ended"))
    for process in processes:
        process.kill()
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    on_cpu = Task(task.family, task.folder, "cpu", "fp32")
    moved = float(np.mean([np.abs(a - b).mean() for a, b in zip(answers[2][1], answers[2][0], strict=True)]))
    return verdict(on_cpu, answers[0][1], answers[2][1], moved)


def _learned(task: Task, rank: int, world: int, ends: Connection) -> None:
    try:
        alone = Task(task.family, task.folder, "cpu", "fp32")
        learner = learner_of(alone, rank, world)
        before = learner.score(task.sequences())
        learner.learn(batch_of(task))
        ends.send((before, learner.score(task.sequences())))
    except Exception as error:
        ends.send(error if isinstance(error, Refused) else RuntimeError(_reason(error)))
