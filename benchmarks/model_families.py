"""Tiny random models of many families: which configurations ``rlpost bench models`` tries, and how one is made.

Windows and original contexts are shorter than the sequences that are compared, biases, norms and routers are random
too, so that whatever a family does differently shows. Left out: families without causal attention over text.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

WINDOW = 24
CONTEXT = 160
"""Tokens of the longest sequence compared."""
VOCABULARY = 256
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 0,
    "eos_token_id": 1, "pad_token_id": 2,
    "tie_word_embeddings": False,
}  # fmt: skip
_MOE: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
_GPT: dict[str, Any] = {"n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 512}
_MLA: dict[str, Any] = {
    "num_key_value_heads": 4, "kv_lora_rank": 512, "q_lora_rank": 48, "qk_rope_head_dim": 64, "qk_nope_head_dim": 64,
    "v_head_dim": 64, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
    "n_shared_experts": 1, "first_k_dense_replace": 1,
}  # fmt: skip


def _longrope(**more: Any) -> dict[str, Any]:
    """Factors for the 16 frequencies of a head of 32."""
    factors = {"short_factor": [1.0 + 0.02 * n for n in range(16)], "long_factor": [1.5 + 0.3 * n for n in range(16)]}
    scaling = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 64, **factors, **more}
    return {"rope_parameters": scaling, "original_max_position_embeddings": 64}


FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("llama", {}),
    "Llama 3 (rotary scaling)": ("llama", {"rope_parameters": {
        "rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}}),
    "Llama, dynamic rotary scaling": ("llama", {
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}}),
    "Llama 4, text": ("llama4_text", {
        "head_dim": 32, "attention_chunk_size": 32, "num_local_experts": 4, "num_experts_per_tok": 1,
        "intermediate_size_mlp": 192, "no_rope_layers": [1, 0], "floor_scale": 16, "attn_scale": 0.1}),
    "Mistral (window)": ("mistral", {"sliding_window": WINDOW}),
    "Mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "Qwen2": ("qwen2", {}),
    "Qwen2-MoE": ("qwen2_moe", {**_MOE, "shared_expert_intermediate_size": 64, "decoder_sparse_step": 1}),
    "Qwen3": ("qwen3", {"head_dim": 32}),
    "Qwen3-MoE": ("qwen3_moe", {**_MOE, "head_dim": 32}),
    "Qwen3-Next (hybrid)": ("qwen3_next", {
        **_MOE, "head_dim": 32, "shared_expert_intermediate_size": 64, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4, "linear_key_head_dim": 32, "linear_value_head_dim": 32,
        "layer_types": ["linear_attention", "full_attention"]}),
    "Gemma": ("gemma", {"head_dim": 32, "tie_word_embeddings": True}),
    "Gemma 2 (soft caps)": ("gemma2", {
        "head_dim": 32, "sliding_window": WINDOW, "query_pre_attn_scalar": 32, "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 4.0, "tie_word_embeddings": True}),
    "Gemma 3": ("gemma3_text", {
        "head_dim": 32, "sliding_window": WINDOW, "query_pre_attn_scalar": 32, "tie_word_embeddings": True}),
    "Phi-1, Phi-2 (biased head)": ("phi", {"num_key_value_heads": 4, "partial_rotary_factor": 0.5}),
    "Phi-3": ("phi3", {"sliding_window": None}),
    "Phi-3, longrope": ("phi3", {"sliding_window": None, **_longrope()}),
    "Phi-3, longrope, short context": ("phi3", {"context": 60, "sliding_window": None, **_longrope()}),
    "Phi-3.5-MoE (window, longrope)": ("phimoe", {
        "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": WINDOW, "attention_bias": True,
        "lm_head_bias": True, "router_jitter_noise": 0.1, "input_jitter_noise": 0.1,
        **_longrope(short_mscale=1.1, long_mscale=1.3)}),
    "OLMo": ("olmo", {"num_key_value_heads": 4}),
    "OLMo 2": ("olmo2", {}),
    "OLMo 3 (window)": ("olmo3", {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}),
    "OLMoE": ("olmoe", {"num_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 64}),
    "DeepSeek-V2": ("deepseek_v2", {**_MLA, "topk_method": "greedy", "n_group": 1, "topk_group": 1}),
    "DeepSeek-V3": ("deepseek_v3", {
        **_MLA, "n_group": 2, "topk_group": 1, "topk_method": "noaux_tc", "scoring_func": "sigmoid"}),
    "GLM-4 (2024)": ("glm", {"head_dim": 32}),
    "GLM-4 (2025)": ("glm4", {"head_dim": 32}),
    "GLM-4-MoE": ("glm4_moe", {
        "head_dim": 32, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
        "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "use_qk_norm": True}),
    "Granite (scaled logits)": ("granite", {
        "logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2}),
    "GraniteMoE": ("granitemoe", {
        "num_local_experts": 4, "num_experts_per_tok": 2, "logits_scaling": 4.0, "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5, "attention_multiplier": 0.2}),
    "Cohere (scaled logits)": ("cohere", {"logit_scale": 0.25, "tie_word_embeddings": True}),
    "Cohere 2 (window)": ("cohere2", {
        "logit_scale": 0.25, "head_dim": 32, "sliding_window": WINDOW, "tie_word_embeddings": True,
        "layer_types": ["sliding_attention", "full_attention"]}),
    "StarCoder2 (window)": ("starcoder2", {"sliding_window": WINDOW}),
    "StableLM": ("stablelm", {"partial_rotary_factor": 0.5, "use_qkv_bias": True}),
    "SmolLM3": ("smollm3", {"no_rope_layers": [1, 0]}),
    "GPT-OSS (sinks)": ("gpt_oss", {
        "head_dim": 32, "sliding_window": WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2,
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128,
            "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}}),
    "MiniCPM3": ("minicpm3", {
        "num_key_value_heads": 4, "kv_lora_rank": 32, "q_lora_rank": 48, "qk_rope_head_dim": 32,
        "qk_nope_head_dim": 32, "v_head_dim": 32, "head_dim": 64, "dim_model_base": 64, "scale_emb": 4,
        "scale_depth": 1.4}),
    "EXAONE 4": ("exaone4", {
        "head_dim": 32, "sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}),
    "Nemotron": ("nemotron", {"head_dim": 32, "partial_rotary_factor": 0.5}),
    "ERNIE 4.5": ("ernie4_5", {"head_dim": 32}),
    "ERNIE 4.5-MoE": ("ernie4_5_moe", {
        "head_dim": 32, "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 64, "moe_num_shared_experts": 1,
        "moe_layer_start_index": 0, "moe_layer_end_index": 1}),
    "Seed-OSS": ("seed_oss", {"head_dim": 32}),
    "Hunyuan": ("hunyuan_v1_dense", {"head_dim": 32}),
    "GPT-2": ("gpt2", {**_GPT, "tie_word_embeddings": True}),
    "GPT-NeoX": ("gpt_neox", {}),
    "GPT-J (biased head)": ("gptj", {**_GPT, "rotary_dim": 16}),
    "OPT (dropout)": ("opt", {
        "ffn_dim": 192, "word_embed_proj_dim": 128, "dropout": 0.1, "tie_word_embeddings": True}),
    "Falcon (rotary)": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False, "bias": False}),
    "Falcon (ALiBi)": ("falcon", {  # transformers' eager attention adds the biases twice
        "own_attention": "sdpa", "new_decoder_architecture": False, "multi_query": False, "alibi": True, "bias": True}),
    "BLOOM (ALiBi)": ("bloom", {"n_layer": 2, "n_head": 4, "tie_word_embeddings": True}),
    "Persimmon": ("persimmon", {"num_key_value_heads": 4, "partial_rotary_factor": 0.5}),
}  # fmt: skip
"""Name -> (transformers' model type, what is not as in ``COMMON``). Not the model's: ``context``, tokens of the run's
longest sequence, and ``own_attention``, which of transformers' attentions is the model's own."""
_OURS = ("context", "own_attention")


def context_of(name: str) -> int:
    """Tokens of the longest sequence of a run."""
    return int(FAMILIES[name][1].get("context", CONTEXT))


def own_attention(name: str) -> str:
    """transformers' name of the attention that the family is defined by."""
    return str(FAMILIES[name][1].get("own_attention", "eager"))


def family_config(name: str) -> Any:
    """transformers' configuration of the family."""
    from transformers import AutoConfig

    kind, changes = FAMILIES[name]
    return AutoConfig.for_model(kind, **{key: one for key, one in (COMMON | changes).items() if key not in _OURS})


def write_family(name: str, folder: Path, seed: int = 0) -> Path:
    """A random model of this family as a Hugging Face folder, in fp32 and without a tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM

    config = family_config(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        randomise(model)
    model.save_pretrained(folder)
    return folder


def randomise(model: Any) -> None:
    """Every weight random, and so large that logits are far from uniform: matrices by their fan-in, and a tenth of
    that size added to whatever vectors (norms, biases, sinks) begin with."""
    import torch

    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            if name not in model.state_dict() or not weight.is_floating_point():
                continue
            if weight.ndim < 2 or name.endswith("bias"):
                weight.add_(torch.randn_like(weight), alpha=0.1)
            elif "embed" in name or "wte" in name or "wpe" in name:
                weight.normal_(0.0, 1.5 / math.sqrt(weight.shape[-1]) if model.config.tie_word_embeddings else 0.5)
            else:
                weight.normal_(0.0, (2.0 if "lm_head" in name else 1.0) / math.sqrt(weight.shape[-1]))
