"""What rollout/vllm relies on in vLLM, by name, so that a new vLLM fails here and says what moved.

vLLM is imported in the engine's actor only. Left out: behaviour; the other tests of the engine hold that.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import pytest

Run = Callable[..., Any]
PARAMETERS = {
    "vllm.v1.engine.core_client:EngineCoreClient.make_client": {
        "multiprocess_mode", "asyncio_mode", "vllm_config", "executor_class", "log_stats",
    },
    "vllm.v1.engine.core_client:InprocClient.add_request": {"request"},
    "vllm.v1.engine.core_client:InprocClient.get_output": set(),
    "vllm.v1.engine.core_client:InprocClient.abort_requests": {"request_ids"},
    "vllm.v1.engine.core_client:InprocClient.collective_rpc": {"method", "kwargs"},
    "vllm.v1.engine.core_client:InprocClient.reset_prefix_cache": {"reset_running_requests"},
    "vllm.v1.engine.core_client:InprocClient.sleep": {"level"},
    "vllm.v1.engine.core_client:InprocClient.wake_up": set(),
    "vllm.v1.engine.core_client:InprocClient.shutdown": set(),
    "vllm.v1.executor:Executor.get_class": {"vllm_config"},
    "vllm.engine.arg_utils:EngineArgs.create_engine_config": {"usage_context"},
    "vllm.engine.arg_utils:EngineArgs": {
        "model", "dtype", "max_model_len", "max_num_seqs", "seed", "enable_prefix_caching", "tensor_parallel_size",
        "logprobs_mode", "weight_transfer_config", "skip_tokenizer_init", "disable_log_stats", "enforce_eager",
        "kv_cache_memory_bytes", "block_size", "gpu_memory_utilization", "use_tqdm_on_load",
        "enable_sleep_mode", "enable_chunked_prefill", "trust_remote_code", "enable_lora", "max_loras",
        "max_lora_rank", "lora_target_modules",
    },
    "vllm.lora.lora_model:LoRAModel.from_lora_tensors": {
        "lora_model_id", "tensors", "peft_helper", "device", "dtype", "weights_mapper",
    },
    "vllm.lora.peft_helper:PEFTHelper": {"r", "lora_alpha", "target_modules"},
    "vllm.lora.model_manager:LoRAModelManager.add_adapter": set(),
    "vllm.lora.model_manager:LoRAModelManager.activate_adapter": {"lora_id"},
    "vllm.lora.model_manager:LoRAModelManager.remove_adapter": {"adapter_id"},
    "vllm:SamplingParams": {
        "max_tokens", "temperature", "seed", "stop_token_ids", "logprobs", "prompt_logprobs", "detokenize",
    },
    "vllm.config:WeightTransferConfig": {"backend"},
    "vllm.v1.worker.gpu_worker:Worker.init_weight_transfer_engine": {"init_info"},
    "vllm.v1.worker.gpu_worker:Worker.start_weight_update": set(),
    "vllm.v1.worker.gpu_worker:Worker.update_weights": {"update_info"},
    "vllm.v1.worker.gpu_worker:Worker.finish_weight_update": set(),
    "vllm.distributed.weight_transfer.factory:WeightTransferEngineFactory.register_engine": {
        "name", "module_path_or_cls",
    },
    "vllm.distributed.weight_transfer.nccl_common:stateless_init_process_group": {
        "master_address", "master_port", "rank", "world_size", "device",
    },
    "vllm.distributed.device_communicators.pynccl:PyNcclCommunicator.broadcast": {"tensor", "src"},
    "vllm.distributed.device_communicators.pynccl:PyNcclCommunicator.destroy": set(),
    "vllm.distributed.utils:stateless_init_torch_distributed_process_group": {
        "host", "port", "rank", "world_size", "backend",
    },
    "vllm.distributed.weight_transfer.packed_tensor:pack_tensors": {
        "iterator", "post_iter_func", "buffer_size_bytes",
    },
    "vllm.distributed.weight_transfer.packed_tensor:unpack_tensor": {
        "packed_tensor", "names", "shapes", "dtypes", "tensor_sizes",
    },
    "vllm.model_executor.model_loader.reload:initialize_layerwise_reload": {"model"},
    "vllm.model_executor.model_loader.reload:finalize_layerwise_reload": set(),
}  # fmt: skip
FIELDS = {
    "vllm.v1.engine:EngineCoreRequest": {
        "request_id", "prompt_token_ids", "mm_features", "sampling_params", "pooling_params", "arrival_time",
        "lora_request", "cache_salt", "data_parallel_rank",
    },
    "vllm.v1.engine:EngineCoreOutput": {
        "request_id", "new_token_ids", "new_logprobs", "new_prompt_logprobs_tensors", "finish_reason", "prefill_stats",
    },
    "vllm.v1.engine:EngineCoreOutputs": {"outputs"},
    "vllm.v1.outputs:LogprobsLists": {"logprobs"},
    "vllm.v1.outputs:LogprobsTensors": {"logprobs"},
    "vllm.v1.metrics.stats:PrefillStats": {"num_prompt_tokens", "num_cached_tokens"},
}  # fmt: skip
REQUIRED_BY_REQUEST = 9
"""Fields an EngineCoreRequest must be given; a tenth would break VllmCore.add."""


def find(place: str) -> Any:
    """The object ``module:dotted.name`` names."""
    module, _, path = place.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def broken_names(signatures: dict[str, set[str]], fields: dict[str, set[str]]) -> list[str]:
    """What is not there, or does not take the parameters or have the fields named."""
    broken = []
    for place, names in {**signatures, **fields}.items():
        try:
            found = find(place)
        except (ImportError, AttributeError) as error:
            broken.append(f"{place}: {error}")
            continue
        has = set(getattr(found, "__struct_fields__", getattr(found, "_fields", ())))
        has |= set(getattr(found, "__annotations__", ())) if place in fields else set()
        has |= set(inspect.signature(found).parameters) if place in signatures else set()
        broken.extend(f"{place} has no '{name}'" for name in sorted(names - has))
    return broken


async def check_contract(engine: Any) -> list[str]:
    """Runs in the actor, where vllm is imported."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend
    from vllm.v1.engine import EngineCoreRequest, FinishReason

    from rlpost.rollout.vllm.config import CPU_HEAD_SIZES

    broken = broken_names(PARAMETERS, FIELDS)
    if not {"STOP", "LENGTH"} <= set(FinishReason.__members__):
        broken.append("FinishReason has no STOP or no LENGTH")
    if set(CPU_HEAD_SIZES) != set(sizes := CPUAttentionBackend.get_supported_head_sizes()):
        broken.append(f"heads on a CPU may now be of size {sizes}")
    required = len(EngineCoreRequest.__struct_fields__) - len(EngineCoreRequest.__struct_defaults__)
    if required != REQUIRED_BY_REQUEST:
        broken.append(f"EngineCoreRequest now has {required} required fields")
    if "rlpost" not in WeightTransferEngineFactory._registry:
        broken.append("no weight receiver 'rlpost'")
    return broken


def test_vllm_has_every_name_relied_on(vllm: Run) -> None:
    assert vllm(check_contract) == []


def test_the_check_sees_what_is_missing() -> None:
    missing = broken_names({"inspect:signature": {"obj", "no_such"}, "inspect:nothing": set()}, {"json:no.such": set()})
    assert [line.split(" ")[0] for line in missing] == ["inspect:signature", "inspect:nothing:", "json:no.such:"]


def test_the_plugin_is_an_entry_point() -> None:
    values = [point.value for point in entry_points(group="vllm.general_plugins") if point.name == "rlpost"]
    assert values == ["rlpost.rollout.vllm.transfer:register"]


async def register_again(engine: Any) -> list[bool]:
    """vLLM may load plugins several times in one process."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    from rlpost.rollout.vllm import transfer

    transfer.register()
    return [WeightTransferEngineFactory._registry["rlpost"]() is transfer.Receiver]


def test_registering_twice_is_harmless(vllm: Run) -> None:
    assert vllm(register_again) == [True]


async def wrong_bytes(engine: Any) -> str:
    import numpy as np

    from rlpost.rollout.transport.object_store import as_tensor

    try:
        as_tensor(np.zeros(3, np.float32), "bfloat16")
    except ValueError as error:
        return str(error)
    return ""


def test_an_array_of_other_width_is_not_reinterpreted(vllm: Run) -> None:
    assert "float32 cannot be bfloat16" in vllm(wrong_bytes)


@pytest.mark.parametrize("name", ["start_weight_update", "receive_weights", "finish_weight_update", "shutdown"])
def test_names_of_the_receiver(vllm: Run, name: str) -> None:
    """vLLM calls these by name on whatever receiver is registered."""
    assert vllm(has_method, name)


async def has_method(engine: Any, name: str) -> bool:
    """Whether vLLM's base class of receivers asks for ``name`` and ours defines it."""
    from vllm.distributed.weight_transfer.base import WeightTransferEngine

    from rlpost.rollout.vllm.transfer import Receiver

    asked = vars(WeightTransferEngine).get(name)
    return asked is not None and asked is not getattr(Receiver, name)


async def where_weights_are_written_in_place(engine: Any) -> list[bool]:
    from types import SimpleNamespace

    from torch import device, nn

    from rlpost.rollout.vllm.transfer import in_place

    class FusedMoE(nn.Linear):
        pass

    def asked(kind: str, quantization: str | None, layer: type[nn.Linear]) -> bool:
        config = SimpleNamespace(quantization=quantization)
        receiver: Any = SimpleNamespace(model=nn.Sequential(layer(2, 2)), model_config=config, device=device(kind))
        return in_place(receiver)

    cases = [("cuda", None, nn.Linear), ("cpu", None, nn.Linear), ("cuda", "fp8", nn.Linear), ("cuda", None, FusedMoE)]
    return [asked(*case) for case in cases]


def test_weights_are_written_in_place_only_where_layers_keep_their_form(vllm: Run) -> None:
    assert vllm(where_weights_are_written_in_place) == [True, False, False, False]
