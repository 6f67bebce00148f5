"""Which models are exact: every family, from a tiny random configuration, in every part of a run.

    rlpost bench models --out DIR --device cpu                          # half an hour on two shared cores
    rlpost bench models --out DIR --device cuda --dtype bf16 --families Llama Mixtral Qwen3-MoE
    rlpost bench models --out DIR --device cpu --page docs/models.md    # and the page of the documentation

A cell is "right (difference)", in nats: the largest in fp32, the mean in bf16, and where weights were moved also how
far they moved log-probs; or "refused: reason"; or what went wrong. Families that are not asked for keep the rows that
DIR has; the page is made of all tables in DIR. Left out: models of a useful size, and what other benchmarks measure.
"""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rlpost.benchmarks.harness import Results, parser, start_in
from rlpost.benchmarks.model_cells import Task, examine, serve, spoilt
from rlpost.benchmarks.model_families import FAMILIES
from rlpost.benchmarks.model_page import COLUMNS, write_page
from rlpost.rollout.vllm.config import VllmConfig, engine_environment

LIMIT_S = 300.0
TINY = ["Llama", "Qwen3-MoE"]


def main() -> None:
    """Each family in processes of its own, so many at a time as ``--jobs`` says."""
    made = parser(__doc__)
    made.add_argument("--dtype", choices=("fp32", "bf16"), default=None, help="fp32 on a CPU, bf16 on a GPU")
    made.add_argument("--families", nargs="+", default=None, help=f"some of: {', '.join(FAMILIES)}")
    made.add_argument("--missing", action="store_true", help="only families of which DIR has no row yet")
    made.add_argument("--jobs", type=int, default=1, help="families at a time")
    made.add_argument("--seconds", type=float, default=86_400.0, help="what has not begun by then is left out")
    made.add_argument("--page", type=Path, default=None, help="write the page of the documentation there")
    args = made.parse_args()
    start_in(variables(args.device))
    dtype = args.dtype or ("fp32" if args.device == "cpu" else "bf16")
    families = args.families or (TINY if args.tiny else list(FAMILIES))
    if unknown := [name for name in families if name not in FAMILIES]:
        raise SystemExit(f"--families: there is no {', '.join(unknown)}; there are: {', '.join(FAMILIES)}")
    name = f"models-{args.device}-{dtype}"
    file = args.out / f"{name}.json"
    kept = json.loads(file.read_text())["rows"] if file.exists() else []
    if args.missing:
        families = [one for one in families if one not in {row["family"] for row in kept}]
    results = Results(name, args.out, {"dtype": dtype})
    results.rows = [row for row in kept if row["family"] not in families]
    ends = time.monotonic() + args.seconds
    context = forking(args.device)

    def one(name: str) -> None:
        if time.monotonic() < ends:
            results.add(**examined(name, args.device, dtype, context))

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(one, families))
    results.rows.sort(key=lambda row: list(FAMILIES).index(row["family"]))
    results.write()
    if args.page is not None:
        write_page(args.page, args.out)


PRELOADED = ["rlpost.benchmarks.model_cells", "rlpost.rollout.vllm.engine", "rlpost.rollout.vllm.core", "peft"]


def forking(device: str) -> Any:
    """Processes forked from one that has imported all; started from nothing where its imports touched a GPU."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    if device == "cuda":
        told, answer = context.Pipe(duplex=False)
        asked = context.Process(target=spoilt, args=(answer,))
        asked.start()
        if told.recv():
            return get_context("spawn")
        asked.join()
    return context


def variables(device: str) -> dict[str, str]:
    """The environment that an engine wants from the start of its process."""
    config = VllmConfig(enforce_eager=True)
    # Each process that is forked looks for GPUs itself; the one it is forked from must not have touched one.
    own = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1", "TOKENIZERS_PARALLELISM": "false"}
    own |= {"TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **engine_environment(config, device), **own}


def examined(name: str, device: str, dtype: str, context: Any) -> dict[str, Any]:
    """One family's row."""
    began, row = time.monotonic(), {"family": name, "path": ""} | dict.fromkeys(COLUMNS, "")
    with TemporaryDirectory() as folder:
        task = Task(name, Path(folder), device, dtype)
        report, told = context.Pipe(duplex=False)
        pipes = [context.Pipe() for _ in range(3)]
        servers = [
            context.Process(target=serve, args=(task, place, theirs))
            for place, (_, theirs) in zip(
                ("vLLM", "vLLM, from the checkpoint", "vLLM, with adapters"), pipes, strict=True
            )
        ]
        processes = [context.Process(target=examine, args=(task, told, [ours for ours, _ in pipes])), *servers]
        for process in processes:
            process.start()
        told.close()
        for ours, theirs in pipes:
            ours.close()
            theirs.close()
        row |= _cells(report, began + LIMIT_S)
        for process in processes:
            process.join(5)
            process.kill()
    return row | {"seconds": round(time.monotonic() - began, 1)}


def _cells(report: Any, deadline: float) -> dict[str, str]:
    """What the learner's process says until it has said all, ends, or takes too long."""
    cells: dict[str, str] = {}
    why = ""
    try:
        while (message := _next(report, deadline)) is not None:
            column, text = message
            cells[column] = text
    except TimeoutError:
        why = f"FAILED: cut off after {LIMIT_S:.0f} s"
    except EOFError:
        why = "FAILED: the process ended"
    return {column: cells.get(column, why) for column in ("path", *COLUMNS)}


def _next(report: Any, deadline: float) -> Any:
    if not report.poll(max(0.0, deadline - time.monotonic())):
        raise TimeoutError
    return report.recv()


if __name__ == "__main__":
    main()
