"""``rlpost eval`` on GSM8K beside vLLM's own ``LLM.generate`` on the same requests: tokens a second, and their ratio.

    rlpost bench eval_throughput --data test.jsonl --out DIR --limit 320         # one GPU, under 6 minutes
    rlpost bench eval_throughput --data test.jsonl --out DIR --device cpu --tiny

The model has random weights (a Qwen2 of 0.5B, bf16) and a tokenizer trained on the questions, so nothing is
downloaded. It never ends by itself: every answer has ``--max-new-tokens``, and those that begin together end together.
With ``--ends 150`` it ends with a probability of 1 / 150 at every token, so that lengths vary as a real model's do. All
get the same prompts as token ids, as many slots and as much memory, in processes of their own, one after the other:

- ``eval``: ``rlpost eval`` as it is (on a GPU vLLM then has a process of its own); the engine's numbers are noted;
- ``vllm``: ``LLM.generate`` as it is (its engine has a process of its own), ``--repeats`` times in one engine;
- ``other``: ``rlpost eval`` with the engine in the worker's process on a GPU, out of it on a CPU;
- ``unjudged``: ``rlpost eval`` with a reward that looks at nothing.

Timed: from the first request to the last answer; ours is judged by math-verify and written to disk within that time,
vLLM's is not. The report is written anew after each, and none is begun that ``--budget-s`` has no time for. Seeds: on a
GPU no request has one (it would cost a kernel launch a request and step); ``--seeded`` gives both sides one. Left out:
models that have learned something.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rlpost.rollout.vllm.engine import VllmEngine

SHAPE = {"hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2}
SHAPE |= {"intermediate_size": 4864, "vocab_size": 151_936}
TINY = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4}
TINY |= {"intermediate_size": 256, "vocab_size": 8192}
WITH = "--with"
TRACE = "RLPOST_TRACE"
GPU_CACHE_GIB, GPU_SHARE = 8, 0.3
"""All requests at once take 2 GiB of it. A cache of given size: where its size is measured, another program that ends
meanwhile ends vLLM too."""

PEER_S = 210
"""Seconds a peer may take, start included; a second engine process that hangs must not take the machine's time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="GSM8K's test.jsonl, also .gz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a model of 4 million weights, few questions")
    parser.add_argument("--limit", type=int, help="questions; default 400, tiny 24")
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, help="default 256, tiny 64")
    parser.add_argument("--ends", type=float, help="mean tokens after which the model ends by itself; default: never")
    parser.add_argument("--slots", type=int, help="requests sampled at once; default 256, tiny 32")
    parser.add_argument("--contestants", default="eval,vllm,other,unjudged", help="which, in this order")
    parser.add_argument("--budget-s", type=float, default=570.0, help="seconds for all of them")
    parser.add_argument("--seeded", action="store_true", help="a seed a request on both sides, on a GPU too")
    parser.add_argument("--repeats", type=int, default=2, help="runs of LLM.generate in one engine; of ours one")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    if sys.argv[1:2] == [WITH]:
        _evaluate_with(sys.argv[2], sys.argv[3:])
        return
    given = parser.parse_args()
    given.limit = given.limit or (24 if given.tiny else 400)
    given.max_new_tokens = given.max_new_tokens or (64 if given.tiny else 256)
    given.slots = given.slots or (32 if given.tiny else 256)
    if given.peer:
        _peer(given)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    model = _model_folder(given)
    if not model.exists():
        _build_model(model, given)
    rows: list[dict[str, Any]] = []
    began = longest = time.monotonic()
    for name in given.contestants.split(","):
        if rows and time.monotonic() + longest > began + given.budget_s:
            print(f"no time left for '{name}'", flush=True)
            continue
        start = time.monotonic()
        try:
            rows += _run_peer(given) if name == "vllm" else [_ours(given, model, name)]
        except subprocess.CalledProcessError as error:
            print(f"'{name}' ended with {error.returncode}", flush=True)
        longest = time.monotonic() - start
        _report(given, rows)


class Traced(VllmEngine):
    """The engine as it is; four times a second its numbers go to the file that the variable TRACE names."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        threading.Thread(target=self._trace, args=(Path(os.environ[TRACE]),), daemon=True).start()

    def _trace(self, path: Path) -> None:
        with path.open("w") as out:
            while True:
                out.write(json.dumps({"time": time.time(), **self.stats()}) + "\n")
                out.flush()
                time.sleep(0.25)


class OtherProcess(Traced):
    """The engine in the worker's process where it would have its own, and the other way round."""

    def __init__(self, own_process: bool, **options: Any) -> None:
        super().__init__(own_process=not own_process, **options)


def _evaluate_with(engine: str, words: list[str]) -> None:
    """``rlpost eval`` with one of these engines."""
    from rlpost import cli
    from rlpost.eval import run
    from rlpost.reward.plugins import Plugin

    run.evaluate = functools.partial(run.evaluate, engine=Plugin(f"rlpost.benchmarks.studies.eval_throughput:{engine}"))
    sys.argv = ["rlpost", "eval", *words]
    cli.main()


def _build_model(folder: Path, given: argparse.Namespace) -> None:
    """Random weights, and a byte-pair tokenizer of the questions' own text, filled up to the vocabulary."""
    import torch
    from tokenizers import ByteLevelBPETokenizer, Tokenizer
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    from rlpost.envs.load import load_rows
    from rlpost.learner.tiny import CHAT_TEMPLATE, END, START

    shape = TINY if given.tiny else SHAPE
    texts = [row["question"] + row["answer"] for _, row in load_rows(given.data)]
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, vocab_size=6000, min_frequency=2, show_progress=False)
    state = json.loads(trained.to_str())
    vocabulary: dict[str, int] = state["model"]["vocab"]
    for index in range(len(vocabulary), shape["vocab_size"] - 2):  # words that no text has, so that ids have a text
        vocabulary[f"Ġw{index}"] = index
    merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in state["model"]["merges"]]
    backend = Tokenizer.from_str(trained.to_str())
    backend.model = BPE(vocab=vocabulary, merges=merges)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, additional_special_tokens=[START])
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(0)
    dtype = torch.float32 if given.device == "cpu" else torch.bfloat16
    config = Qwen2Config(**shape, tie_word_embeddings=True, max_position_embeddings=4096)
    model = Qwen2ForCausalLM(config)
    if given.ends:
        _let_end(model, tokenizer.eos_token_id, given.ends)
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _let_end(model: Any, end: int, mean: float) -> None:
    """Give token ``end`` a probability of about 1 / mean everywhere: the last layer's values get a bias that outweighs
    the rest, so that all hidden states point the same way, and the token's row points there too."""
    import torch

    ids = torch.randint(model.config.vocab_size, (4, 64))
    with torch.no_grad():
        model.model.layers[-1].self_attn.v_proj.bias.normal_()
        hidden = model.model(ids).last_hidden_state.flatten(0, 1)
        others = model.lm_head(hidden).logsumexp(-1)
        way = torch.nn.functional.normalize(hidden.mean(0), dim=0)
        low, high = 0.0, 100.0
        for _ in range(50):
            length = (low + high) / 2
            often = torch.sigmoid(length * (hidden @ way) - others).mean() > 1 / mean
            low, high = (low, length) if often else (length, high)
        model.lm_head.weight[end] = low * way


def _model_folder(given: argparse.Namespace) -> Path:
    return Path(given.out) / ("model" if given.ends is None else f"model-ends-{given.ends:g}")


def _dtype(given: argparse.Namespace) -> str:
    return "fp32" if given.device == "cpu" else "bf16"


def _unjudged(given: argparse.Namespace) -> str:
    """The same questions and prompts, and a reward that looks at nothing: what judging costs."""
    from rlpost.eval.catalogue import GSM8K

    path = given.out / "unjudged.py"
    path.write_text(
        "from rlpost.envs.load import load_rows\nfrom rlpost.eval.columns import gsm8k\n\n"
        f"prompt = {GSM8K.prompt!r}\n\n\n"
        "def load(source):\n    return [gsm8k(row) for _, row in load_rows(source)]\n\n\n"
        "def reward(completion, task):\n    return 0.0\n"
    )
    return str(path.resolve())


def _ours(given: argparse.Namespace, model: Path, contestant: str) -> dict[str, Any]:
    bench = _unjudged(given) if contestant == "unjudged" else "gsm8k"
    name, out = Path(bench).stem, given.out / contestant
    subprocess.run(["rm", "-rf", str(out)], check=True)
    words = [str(model), "--bench", bench, "--n", str(given.n), "--limit", str(given.limit), "--out", str(out)]
    words += ["--max-new-tokens", str(given.max_new_tokens), "--data", f"{name}={given.data.resolve()}"]
    words += [f"engine.slots={given.slots}", f"engine.dtype={_dtype(given)}", "temperature=1.0"]
    if given.device == "cpu":
        words += ["engine.kv_cache_gib=0.5", "engine.threads=1"]
    else:
        words += [f"engine.kv_cache_gib={GPU_CACHE_GIB}", f"engine.gpu_memory_utilization={GPU_SHARE}"]
    if given.seeded:
        words.append("deterministic=true")
    command = ["-P", str(Path(__file__)), WITH, "OtherProcess" if contestant == "other" else "Traced"]
    began = time.monotonic()
    trace = given.out / f"trace-{contestant}.jsonl"
    environment = {**os.environ, TRACE: str(trace.resolve())}
    subprocess.run([sys.executable, *command, *words], env=environment, check=True)
    results = json.loads((out / "results.json").read_text())
    found = results["benchmarks"][name]
    assert found["failed"] == 0.0, found
    whole = time.monotonic() - began
    counted = results["engines"][0]
    step_ms = round(1e3 * counted["step_s"] / counted["steps"], 2)
    name = _label(given, contestant)
    _explain(trace, results["wall_s"])
    return _row(name, results["samples_played"], found["tokens"], results["wall_s"], whole, step_ms)


def _explain(trace: Path, wall_s: float) -> None:
    """What the engine did meanwhile, to within a quarter of a second."""
    rows = [json.loads(line) for line in trace.read_text().splitlines()]
    rows = [row for row in rows if row.get("steps")]
    busy = [row for before, row in itertools.pairwise(rows) if row["tokens"] > before["tokens"]]
    steps, tokens, step_s = (rows[-1][name] - rows[0][name] for name in ("steps", "tokens", "step_s"))
    print(
        f"{trace.stem}: tokens came for {busy[-1]['time'] - rows[0]['time']:.2f} of {wall_s:.2f} s: {steps:.0f} steps "
        f"of {1e3 * step_s / steps:.2f} ms and {tokens / steps:.1f} tokens, {step_s:.2f} s together",
        flush=True,
    )


def _label(given: argparse.Namespace, contestant: str) -> str:
    own = (given.device == "cuda" and not given.seeded) != (contestant == "other")
    where = "engine in its own process" if own else "engine in the worker's process"
    return f"rlpost eval, {where}{', unjudged' if contestant == 'unjudged' else ''}"


def _row(
    name: str, requests: int, tokens: int, seconds: float, whole_s: float, step_ms: float | str = ""
) -> dict[str, Any]:
    return {
        "name": name,
        "requests": requests,
        "tokens": tokens,
        "seconds": round(seconds, 2),
        "tokens_per_s": round(tokens / seconds, 1),
        "with_start_s": round(whole_s, 1),
        "step_ms": step_ms,
    }


def _run_peer(given: argparse.Namespace) -> list[dict[str, Any]]:
    from rlpost.benchmarks.harness import peer_environment
    from rlpost.rollout.vllm.config import VllmConfig

    environment = peer_environment(VllmConfig(threads=1), given.device)
    command = [sys.executable, "-P", str(Path(__file__)), *sys.argv[1:], "--peer"]
    began = time.monotonic()
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        code = process.wait(PEER_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with the engine's own process, which would keep the GPU's memory
        code = process.wait()
    if code != 0:
        print(f"LLM.generate: ended with {code}", flush=True)
        return []
    rows: list[dict[str, Any]] = json.loads((given.out / "peer.json").read_text())
    return [{**row, "with_start_s": round(time.monotonic() - began, 1)} for row in rows]


def _peer(given: argparse.Namespace) -> None:
    """In a process of its own: vLLM's offline engine on the prompts that the evaluation asked, as token ids."""
    from vllm import LLM, SamplingParams

    from rlpost.rollout.chat import load_format

    model = _model_folder(given)
    chat = load_format(model)
    asked = [json.loads(line)["messages"] for line in (given.out / "eval" / "tasks.jsonl").read_text().splitlines()]
    prompts = [{"prompt_token_ids": chat.opening(messages)} for messages in asked for _ in range(given.n)]
    longest = max(len(prompt["prompt_token_ids"]) for prompt in prompts)
    options: dict[str, Any] = {"enforce_eager": True, "kv_cache_memory_bytes": 1 << 29, "block_size": 32}
    if given.device == "cuda":
        options = {"gpu_memory_utilization": GPU_SHARE, "kv_cache_memory_bytes": GPU_CACHE_GIB << 30}
    llm = LLM(
        model=str(model),
        dtype="float32" if given.device == "cpu" else "bfloat16",
        max_model_len=longest + given.max_new_tokens,
        max_num_seqs=given.slots,
        **options,
    )
    seeded = given.seeded or given.device == "cpu"
    sampling = [
        SamplingParams(
            temperature=1.0,
            max_tokens=given.max_new_tokens,
            seed=index if seeded else None,
            stop_token_ids=chat.stop_token_ids,
        )
        for index in range(len(prompts))
    ]
    rows = []
    for number in range(given.repeats):
        began = time.monotonic()
        outputs = llm.generate(prompts, sampling, use_tqdm=False)
        seconds = time.monotonic() - began
        tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        rows.append(_row(f"LLM.generate, run {number + 1}", len(outputs), tokens, seconds, 0.0))
        llm.reset_prefix_cache()
    (given.out / "peer.json").write_text(json.dumps(rows))


def _report(given: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    peers = [row["tokens_per_s"] for row in rows if row["name"].startswith("LLM")]
    for row in rows if peers else ():
        row["to_first_vllm"] = round(row["tokens_per_s"] / peers[0], 3)
        row["to_fastest_vllm"] = round(row["tokens_per_s"] / max(peers), 3)
    settings = {key: str(value) for key, value in vars(given).items() if key != "peer"}
    content = {"rows": rows, "settings": settings, "machine": _machine(given)}
    (given.out / "eval_throughput.json").write_text(json.dumps(content, indent=1))
    titles = ["", "requests", "tokens", "seconds", "tokens/s", "with engine start, s", "ms an engine step"]
    titles += ["to the first vLLM", "to the fastest"] if peers else []
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    lines += [
        "| " + " | ".join(f"{value:,}" if isinstance(value, int | float) else value for value in row.values()) + " |"
        for row in rows
    ]
    text = "\n".join([*lines, f"\n{_machine(given)}", ""])
    (given.out / "eval_throughput.md").write_text(text)
    print(text, flush=True)


def _machine(given: argparse.Namespace) -> str:
    if given.device == "cpu":
        return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    shown = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    return shown.stdout.strip().splitlines()[0]


if __name__ == "__main__":
    main()
