"""Episodes at scale: how fast they go while environments think, against vLLM's own offline throughput; and memory.

    rlpost bench agents_scale --out DIR memory                 # 256 worlds of errands at once, all shells alive
    rlpost bench agents_scale --out DIR speed [--model PATH]   # 64 slots, 256 episodes, 0 to 2 s a turn

``speed`` plays the same episodes without and with a random sleep in every step of the environment, then hands the very
requests of the first to ``LLM.generate`` at once. Left out: training.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlpost.envs.base import Env, Message, Observation, Score, Task
from rlpost.rollout.vllm.config import VllmConfig, engine_environment

GIB = 1 << 30


class Thinking(Env):
    """So many turns, each answered after a sleep of 0 to ``seconds``."""

    def __init__(self, task: Task, seed: int, turns: int = 4, seconds: float = 0.0) -> None:
        super().__init__(task, seed)
        self._left, self._seconds, self._draw = turns, seconds, random.Random(seed)

    async def start(self) -> Sequence[Message]:  # type: ignore[override]
        """A prompt of about a hundred bytes."""
        return [{"role": "user", "content": f"episode {self.task.id}: " + "think about it and answer. " * 4}]

    async def step(self, text: str) -> Observation:  # type: ignore[override]
        """Think."""
        await asyncio.sleep(self._draw.uniform(0.0, self._seconds))
        self._left -= 1
        return Observation("go on", done=self._left <= 0)

    def score(self) -> Score:
        """Nothing."""
        return Score(0.0)


def speed(args: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second: without delay, with delay, offline. A part that fails says why and leaves the others."""
    names = ("device", "slots", "episodes", "turns", "tokens", "seconds")
    found: dict[str, Any] = {name: getattr(args, name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or str(_build(Path(folder)))
        listed = Path(folder) / "requests.json"
        for part, more in (
            ("without_delay", ["--seconds", "0"]),
            ("with_delay", ["--seconds", str(args.seconds)]),
            ("offline", ["--offline", str(listed)]),
        ):
            found[part], requests = _in_child(args, model, part, more)
            if part == "without_delay":
                listed.write_text(json.dumps(requests))
            write(args, found)
    rate = {part: found[part].get("tokens_per_s", float("nan")) for part in ("without_delay", "with_delay", "offline")}
    found["delay_ratio"] = rate["with_delay"] / rate["without_delay"]
    found["offline_ratio"] = rate["without_delay"] / rate["offline"]
    return found


def _in_child(args: argparse.Namespace, model: str, part: str, more: list[str]) -> tuple[dict[str, Any], list[Any]]:
    """One engine in a process of its own; what it measured and the requests it served. All it says is kept in a log
    beside the results; the end of that is shown where it failed."""
    config = VllmConfig(slots=args.slots, threads=args.threads)
    environment = {**os.environ, **engine_environment(config, args.device), "VLLM_LOGGING_LEVEL": "INFO"}
    log, out = args.out / f"agents_speed_{part}.log", args.out / f"agents_speed_{part}.json"
    out.unlink(missing_ok=True)
    command = [sys.executable, str(Path(__file__).resolve()), "--out", str(out), "child", "--model", model]
    command += ["--device", args.device]
    for name in ("slots", "episodes", "turns", "tokens", "threads"):
        command += [f"--{name}", str(getattr(args, name))]
    with log.open("w") as file:
        done = subprocess.run([*command, *more], env=environment, stdout=file, stderr=file, check=False)
    if done.returncode or not out.exists():
        lines = log.read_text(errors="replace").splitlines()
        print(f"{part}: its process ended with {done.returncode}; {log} ends:", *lines[-60:], sep="\n", flush=True)
        return {"failed": lines[-1] if lines else f"exit {done.returncode}"}, []
    said = json.loads(out.read_text())
    out.unlink()
    print(part, said["found"], flush=True)
    return said["found"], said["requests"]


def write(args: argparse.Namespace, found: dict[str, Any]) -> None:
    """What there is so far."""
    (args.out / f"agents_{args.what}.json").write_text(json.dumps(found, indent=1))


def child(args: argparse.Namespace) -> None:
    """Play, or generate offline; results to ``--out``."""
    found, requests = _offline(args) if args.offline else asyncio.run(_play(args))
    args.out.write_text(json.dumps({"found": found, "requests": requests}))
    sys.stdout.flush()
    os._exit(0)  # what is left of the engine has nothing more to say


def _config(args: argparse.Namespace) -> VllmConfig:
    dtype, cache = ("fp32", 0.5) if args.device == "cpu" else ("bf16", 8.0)
    return VllmConfig(dtype=dtype, slots=args.slots, threads=args.threads, kv_cache_gib=cache)


def _context(args: argparse.Namespace) -> int:
    return 256 + args.turns * (args.tokens + 64)


async def _play(args: argparse.Namespace) -> tuple[dict[str, Any], list[Any]]:
    from rlpost.reward.plugins import Plugin
    from rlpost.rollout.config import RolloutConfig
    from rlpost.rollout.specs import EpisodeSpec, WorkerSetup
    from rlpost.rollout.worker import RolloutWorker

    config = RolloutConfig(
        max_turns=args.turns, max_new_tokens=args.tokens, max_context=_context(args), chat="plain", max_concurrent=256
    )
    setup = WorkerSetup(
        model_folder=args.model,
        engine=Plugin("rlpost.rollout.vllm.engine:VllmEngine"),
        env=Plugin.locate(f"{__file__}:Thinking"),
        config=config,
        engine_options={
            "model": args.model,
            "config": _config(args),
            "max_context": config.max_context,
            "own_process": args.device == "cuda",
        },
        env_options={"turns": args.turns, "seconds": args.seconds},
    )
    worker = RolloutWorker(setup)
    requests = _record(worker._engine)

    def specs(count: int, first: int) -> list[EpisodeSpec]:
        return [EpisodeSpec(Task(str(i), {}), i, 0, seed=i, order=i) for i in range(first, first + count)]

    await asyncio.gather(*(worker.run(spec) for spec in specs(args.slots, 10_000)))  # warm-up
    requests.clear()
    before = worker._engine.stats()  # type: ignore[attr-defined]
    began = time.perf_counter()
    await asyncio.gather(*(worker.run(spec) for spec in specs(args.episodes, 0)))
    wall = time.perf_counter() - began
    after = worker._engine.stats()  # type: ignore[attr-defined]
    new = {name: after[name] - before[name] for name in ("tokens", "steps", "prompt_tokens", "cached_tokens", "step_s")}
    await worker.close()
    found = {
        "tokens_per_s": new["tokens"] / wall,
        "episodes_per_minute": 60 * args.episodes / wall,
        "wall_s": wall,
        "tokens": new["tokens"],
        "slots_busy": new["tokens"] / new["steps"],
        "prefix_cache_hit_rate": new["cached_tokens"] / new["prompt_tokens"],
        "engine_busy": new["step_s"] / wall,
    }
    return found, list(requests)


def _record(engine: Any) -> list[Any]:
    """Note what the engine is asked, and how many tokens it gave."""
    requests: list[Any] = []
    generate = engine.generate

    async def noted(request: Any) -> Any:
        sample = await generate(request)
        requests.append([request.token_ids, len(sample.token_ids)])
        return sample

    engine.generate = noted
    return requests


def _offline(args: argparse.Namespace) -> tuple[dict[str, Any], list[Any]]:
    from vllm import LLM, SamplingParams

    from rlpost.rollout.vllm.core import engine_arguments

    arguments = engine_arguments(args.model, _config(args), _context(args), 0, cpu=args.device == "cpu")
    llm = LLM(**arguments)
    requests = json.loads(Path(args.offline).read_text())
    prompts: Any = [{"prompt_token_ids": tokens} for tokens, _ in requests]
    sampling = [SamplingParams(max_tokens=n, ignore_eos=True, logprobs=0, detokenize=False) for _, n in requests]
    llm.generate(prompts[: args.slots], sampling[: args.slots], use_tqdm=False)
    llm.reset_prefix_cache()
    began = time.perf_counter()
    llm.generate(prompts, sampling, use_tqdm=False)
    wall = time.perf_counter() - began
    tokens = sum(n for _, n in requests)
    return {"tokens_per_s": tokens / wall, "wall_s": wall, "tokens": tokens}, []


def _build(folder: Path) -> Path:
    from rlpost.learner.config import BuildConfig, ModelConfig
    from rlpost.learner.model import materialise

    build = BuildConfig(hidden=256, layers=3, heads=4, intermediate=512, initializer_range=0.05)
    return materialise(ModelConfig(build=build), folder / "model", 0)


def memory(args: argparse.Namespace) -> dict[str, Any]:
    """What ``episodes`` worlds take at once, each with a live shell that has signed in and looked around."""
    from rlpost.envs.appworld import AppWorld
    from rlpost.envs.errands.datasets import task_of

    before = _tree_memory(os.getpid())
    tasks = list(AppWorld.tasks("train", 0))
    envs = [AppWorld(tasks[i % len(tasks)], i) for i in range(args.episodes)]
    began = time.perf_counter()

    def play(part: Sequence[AppWorld]) -> None:
        for env in part:
            env.start()
            for block in task_of(env.task.id).build()[1].solution[:-1]:
                assert not env.step(f"```python\n{block}\n```").text.startswith("Execution failed")

    threads = [threading.Thread(target=play, args=(envs[start::16],)) for start in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, used = time.perf_counter() - began, _tree_memory(os.getpid())
    for env in envs:
        env.close()
    return {
        "episodes": args.episodes,
        "memory_gib": used / GIB,
        "memory_before_gib": before / GIB,
        "mib_an_episode": (used - before) / args.episodes / (1 << 20),
        "seconds": seconds,
        "turns_per_s": 3 * args.episodes / seconds,
    }


def _tree_memory(root: int) -> int:
    """Bytes (PSS: shared pages are counted once) of a process and all its descendants."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    total = 0
    for pid in family:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def main() -> None:
    """Parse, measure, write JSON and a Markdown line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("memory", "speed", "child"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--model", help="a model folder; default: 2 million random parameters")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=48, help="a turn may have")
    parser.add_argument("--seconds", type=float, default=2.0, help="longest sleep of a turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="a dozen short episodes, to see that it runs")
    parser.add_argument("--offline", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.what == "child":
        child(args)
        return
    if args.tiny:
        args.slots, args.episodes, args.tokens, args.seconds = 4, 12, 16, 0.2
    args.out.mkdir(parents=True, exist_ok=True)
    found = memory(args) if args.what == "memory" else speed(args)
    write(args, found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
