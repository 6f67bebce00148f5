"""The vLLM objects behind the engine: one in-process engine core, and the few calls made to it.

It sits one level below ``vllm.LLMEngine``, with token ids on both sides, so neither a tokenizer nor vLLM's output
processing (a dictionary of log-probabilities a token) is paid for. Everything here must be called from one thread.
``tests/rollout/test_vllm_contract.py`` pins the names relied on. Left out: threads and futures (loop.py), and
admission (waiting.py).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from vllm import SamplingParams
from vllm.config import WeightTransferConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.platforms import current_platform
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest
from vllm.v1.engine.core_client import EngineCoreClient
from vllm.v1.executor import Executor

from rlpost.rollout.digest import Held
from rlpost.rollout.engine import EngineError
from rlpost.rollout.transport.ends import Rendezvous
from rlpost.rollout.vllm.adapters import adapter_arguments, request
from rlpost.rollout.vllm.config import CPU_CACHE_GIB, VllmConfig
from rlpost.rollout.vllm.transfer import RECEIVER, held, load_adapters, register
from rlpost.rollout.weight_update import DEFAULT_TRANSPORT, Adapters, WeightUpdate

PROBE_SLOTS = 10
"""Places beyond ``slots``, so that a probe never waits for a long request to end."""
GIB = 1 << 30
TORCH_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
CPU_BLOCK = 32
"""Tokens a block of the KV cache on a CPU. vLLM's 128 there would let only contexts longer than that share a prefix;
its kernels want a multiple of 32."""


@contextlib.contextmanager
def _installed_code_first() -> Iterator[None]:
    """Python processes that vLLM starts meanwhile do not import from the working directory: one that looks at a model's
    class is started by ``-m``, and a user's ``torch.py`` would be its torch."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


class VllmCore:
    """One vLLM engine core in this process.

    Args:
        model: Hugging Face folder or hub name; its weights are loaded.
        config: the engine's keys.
        max_context: longest sequence, prompt and sampled tokens together.
        seed: seed of draws that have no seed of their own.
        transport: name of the transport that weights will come by.
        seeded: requests draw from their own seeds. On a GPU vLLM may then launch one kernel a request and step, which
            takes longer than the rest of a step of a small model, and the draws still do not repeat, because logits
            depend on the batch; so elsewhere than in deterministic runs all requests draw from ``seed`` there.
        scored: log-probabilities of sampled tokens may be asked for. vLLM then computes those of the whole vocabulary
            in every step, asked or not.
        adapters: what updates will bring; None: they bring whole models.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        EngineError: vLLM cannot start; the message has its reason.
    """

    def __init__(
        self,
        model: str,
        config: VllmConfig,
        max_context: int,
        seed: int,
        transport: str = DEFAULT_TRANSPORT,
        seeded: bool = True,
        scored: bool = True,
        adapters: Adapters | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self._transport = transport
        self._adapted = False
        self._on_cpu = current_platform.is_cpu()
        self._asleep = False
        self._seeded = seeded or self._on_cpu
        try:
            arguments = engine_arguments(model, config, max_context, seed, self._on_cpu, scored, adapters)
            with _installed_code_first():
                self._start(arguments | {"trust_remote_code": trust_remote_code})
        except Exception as error:
            raise EngineError(f"vLLM cannot start with model '{model}': {type(error).__name__}: {error}") from error

    def _start(self, arguments: dict[str, Any]) -> None:
        register()
        # The usage context decides the default token budget of a step; this is the one of offline batches.
        settings = EngineArgs(**arguments).create_engine_config(UsageContext.LLM_CLASS)
        self.vocabulary: int = settings.model_config.get_vocab_size()
        self._client: Any = EngineCoreClient.make_client(
            multiprocess_mode=False,
            asyncio_mode=False,
            vllm_config=settings,
            executor_class=Executor.get_class(settings),
            log_stats=False,
        )
        self._begin_transfer({"transport": self._transport})

    @property
    def waits_for_bursts(self) -> bool:
        """Whether an idle engine does well to begin with all requests of a burst; see loop.py."""
        return not self._on_cpu

    def connect(self, where: Rendezvous) -> None:
        """Meet the learner and the other engines, again where one was replaced; blocks until all have."""
        self._begin_transfer({"transport": self._transport, "where": where})

    def _begin_transfer(self, info: dict[str, Any]) -> None:
        self._client.collective_rpc("init_weight_transfer_engine", kwargs={"init_info": info})

    def add(
        self,
        request_id: str,
        token_ids: list[int],
        max_tokens: int,
        temperature: float,
        seed: int | None,
        stop_token_ids: Sequence[int] = (),
        score_prompt: bool = False,
        logprobs: bool = True,
    ) -> None:
        """Queue a request. With ``score_prompt`` its first output also has the log-probabilities of ``token_ids``.

        vLLM reads those off plain logits at temperature 1 in every mode (sampling processors do not apply to given
        tokens), and such a request never reads the prefix cache.
        """
        sampling = SamplingParams(
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed if self._seeded else None,
            stop_token_ids=list(stop_token_ids),
            logprobs=0 if logprobs else None,  # 0: of the sampled token alone
            prompt_logprobs=0 if score_prompt else None,
            detokenize=False,
        )
        self._client.add_request(
            EngineCoreRequest(
                request_id=request_id,
                prompt_token_ids=token_ids,
                mm_features=None,
                sampling_params=sampling,
                pooling_params=None,
                arrival_time=time.time(),
                lora_request=request() if self._adapted else None,
                cache_salt=None,
                data_parallel_rank=None,
            )
        )

    def step(self) -> list[EngineCoreOutput]:
        """One engine step: at most one new token a running request."""
        return self._client.get_output().outputs

    def abort(self, request_ids: list[str]) -> None:
        """Drop requests; no output of theirs follows that need be looked at."""
        self._client.abort_requests(request_ids)

    def load(self, update: WeightUpdate) -> list[Held]:
        """Switch to new weights. Running requests start over on their tokens so far: their cache is of old weights.

        Every cached block is dropped, and outputs that vLLM still has in flight are sampled again.

        Returns:
            what each of vLLM's worker processes then holds.
        """
        if self._asleep:
            self._client.wake_up()
            self._asleep = False
        if update.rank:
            self._client.collective_rpc(load_adapters, args=(update,))
            self._adapted = True
        else:
            self._client.collective_rpc("start_weight_update")
            self._client.collective_rpc("update_weights", kwargs={"update_info": {"update": update}})
            self._client.collective_rpc("finish_weight_update")
        if not self._client.reset_prefix_cache(reset_running_requests=True):
            raise EngineError("vLLM did not reset its prefix cache, so old weights' cache would be used on")
        found: list[Held] = self._client.collective_rpc(held)
        return found

    def sleep(self) -> None:
        """Free the GPU's memory: weights go to CPU memory and the cache is dropped. No request may be running; the next
        ``load`` takes the memory back. Nothing to do on a CPU."""
        if not (self._on_cpu or self._asleep):
            self._client.sleep(1)
            self._asleep = True

    def close(self) -> None:
        """Free the model and the cache."""
        self._client.shutdown()


def engine_arguments(
    model: str,
    config: VllmConfig,
    max_context: int,
    seed: int,
    cpu: bool,
    scored: bool = True,
    adapters: Adapters | None = None,
) -> dict[str, Any]:
    """Keyword arguments of ``vllm.EngineArgs``."""
    arguments: dict[str, Any] = {
        "model": model,
        "dtype": TORCH_NAMES[config.compute_dtype("cpu" if cpu else "cuda")],
        "max_model_len": max_context,
        "max_num_seqs": config.slots + PROBE_SLOTS,
        "seed": seed,
        "enable_prefix_caching": True,
        "tensor_parallel_size": config.tensor_parallel,
        # Left to itself vLLM would place tensor-parallel workers through Ray when it finds itself in an actor.
        "distributed_executor_backend": "mp" if config.tensor_parallel > 1 else "uni",
        # The default, raw_logprobs, ignores the temperature, and costs nothing where none are asked for.
        "logprobs_mode": "processed_logprobs" if scored else "raw_logprobs",
        "weight_transfer_config": WeightTransferConfig(backend=RECEIVER),
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if adapters is not None:
        arguments |= adapter_arguments(adapters)
    if cpu:
        # Compiling takes longer than it saves at the sizes a CPU can train. A prompt whose cache is computed in pieces
        # makes vLLM take back a draw from the request's generator, which only a GPU's generator can.
        return arguments | {
            "enforce_eager": True,
            "enable_chunked_prefill": False,
            "kv_cache_memory_bytes": int((config.kv_cache_gib or CPU_CACHE_GIB) * GIB),
            "block_size": CPU_BLOCK,
        }
    return arguments | {
        "enforce_eager": config.enforce_eager,
        "gpu_memory_utilization": config.gpu_memory_utilization,
        "kv_cache_memory_bytes": None if config.kv_cache_gib is None else int(config.kv_cache_gib * GIB),
        "enable_sleep_mode": config.sleep,
    }
