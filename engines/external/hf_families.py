"""How each family of transformers writes a model as its ``config.json``: what it can, whatever the model."""

import math
from collections.abc import Callable, Mapping
from typing import Final

from engines.core.model import Model
from engines.external.hf_rotary import Content, rope
from engines.weights.checkpoint.window import FULL, SLIDING

GELU: Final = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu"}


def _common(model: Model) -> Content:
    """What all configs with Llama's names of keys have."""
    found: Content = {
        "hidden_size": model.d_model,
        "intermediate_size": model.d_ff,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.num_kv_heads,
        "head_dim": model.head_dim,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.max_positions,
        "rms_norm_eps": model.norm_epsilon,
        "hidden_act": "silu",
        "tie_word_embeddings": model.tied_embedding,
        "attention_bias": model.attn_bias,
    }
    return found | rope(model)


def _layer_types(model: Model) -> list[str]:
    return [FULL if kind.window is None else SLIDING for kind in model.layer_kinds]


def _llama(model: Model) -> Content:
    return _common(model) | {"mlp_bias": model.ffn_bias}


def _mistral(model: Model) -> Content:
    content = _common(model) | {"sliding_window": model.attention_window}
    return {key: value for key, value in content.items() if key != "attention_bias"}


def _qwen2(model: Model) -> Content:
    return {key: value for key, value in _common(model).items() if key != "attention_bias"}


def _granite(model: Model) -> Content:
    return _llama(model) | {
        "embedding_multiplier": model.embedding_scale,
        "residual_multiplier": model.residual_scale,
        "logits_scaling": 1 / model.logit_scale,
        "attention_multiplier": model.attn_scale or model.head_dim**-0.5,
    }


def _cohere(model: Model) -> Content:
    content = _common(model) | {"layer_norm_eps": model.norm_epsilon, "logit_scale": model.logit_scale}
    return {key: value for key, value in content.items() if key not in ("rms_norm_eps", "head_dim")}


def _gemma(model: Model) -> Content:
    return _common(model) | {"hidden_act": "gelu_pytorch_tanh"}


def _gemma2(model: Model) -> Content:
    content = _common(model) | {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": round((model.attn_scale or model.head_dim**-0.5) ** -2),
        "sliding_window": model.attention_window,
        "layer_types": _layer_types(model),
        "attn_logit_softcapping": model.attn_softcap,
        "final_logit_softcapping": model.logit_softcap,
    }
    return {key: value for key, value in content.items() if key != "hidden_act"}


def _gemma3(model: Model) -> Content:
    return _gemma2(model) | {"rope_local_base_freq": model.rotary_window_base or 10000.0}


def _mixtral(model: Model) -> Content:
    return _mistral(model) | {
        "intermediate_size": model.expert_d_ff or model.d_ff,
        "num_local_experts": model.num_experts or 1,
        "num_experts_per_tok": model.experts_per_token or 1,
    }


def _qwen3_moe(model: Model) -> Content:
    return _common(model) | {
        "moe_intermediate_size": model.expert_d_ff or model.d_ff,
        "num_experts": model.num_experts or 1,
        "num_experts_per_tok": model.experts_per_token or 1,
        "norm_topk_prob": model.router_normalized,
        "mlp_only_layers": list(range(model.dense_layers or 0)),
        "decoder_sparse_step": 1,
    }


def _qwen2_moe(model: Model) -> Content:
    content = _qwen3_moe(model) | {
        "shared_expert_intermediate_size": model.shared_expert_d_ff or 1,
        "qkv_bias": model.attn_bias,
    }
    return {key: value for key, value in content.items() if key != "attention_bias"}


def _gpt_oss(model: Model) -> Content:
    return _common(model) | {
        "intermediate_size": model.expert_d_ff or model.d_ff,
        "sliding_window": model.attention_window,
        "layer_types": _layer_types(model),
        "num_local_experts": model.num_experts or 1,
        "num_experts_per_tok": model.experts_per_token or 1,
        "swiglu_limit": 7.0,
    }


def _deepseek(model: Model) -> Content:
    """What DeepSeek-V2 and V3 have in common."""
    content = _common(model) | {
        "q_lora_rank": model.q_latent_dim,
        "kv_lora_rank": model.kv_latent_dim or 1,
        "qk_rope_head_dim": model.rotated_dim,
        "qk_nope_head_dim": max(1, model.head_dim - model.rotated_dim),
        "v_head_dim": model.attention.value_dim,
        "moe_intermediate_size": model.expert_d_ff or model.d_ff,
        "n_routed_experts": model.num_experts or 1,
        "n_shared_experts": max(1, (model.shared_expert_d_ff or 0) // (model.expert_d_ff or model.d_ff)),
        "num_experts_per_tok": model.experts_per_token or 1,
        "first_k_dense_replace": model.num_layers if model.num_experts is None else model.dense_layers or 0,
        "routed_scaling_factor": model.router_scale,
        "n_group": model.router_groups,
        "topk_group": model.router_groups_kept,
        "moe_layer_freq": 1,
    }
    scaling = content.get("rope_scaling")
    if model.rotary_scaling == "yarn" and scaling is not None:
        # Scores carry YaRN's factor by mscale_all_dim: s = 0.1·m·ln(factor) + 1, twice.
        extra = ((model.attn_scale or model.head_dim**-0.5) * model.head_dim**0.5) ** 0.5 - 1
        scaled = extra / (0.1 * math.log(model.rotary_factor)) if model.rotary_factor > 1 else 0.0
        if scaled > 0:
            content["rope_scaling"] = scaling | {"mscale": _round(scaled), "mscale_all_dim": _round(scaled)}
    return {key: value for key, value in content.items() if key != "head_dim"}


def _deepseek_v3(model: Model) -> Content:
    return _deepseek(model) | {
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "norm_topk_prob": model.router_normalized,
        "num_nextn_predict_layers": 0,
        "rope_interleave": model.rotary_interleaved,
    }


def _deepseek_v2(model: Model) -> Content:
    grouped = model.router_groups > 1
    return _deepseek(model) | {
        "scoring_func": "softmax",
        "topk_method": "group_limited_greedy" if grouped else "greedy",
        "norm_topk_prob": model.router_normalized,
    }


def _neox(model: Model) -> Content:
    return {
        "hidden_size": model.d_model,
        "intermediate_size": model.d_ff,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.max_positions,
        "layer_norm_eps": model.norm_epsilon,
        "hidden_act": GELU.get(model.activation, "gelu"),
        "rotary_emb_base": model.rotary_base,
        "rotary_pct": model.rotated_dim / model.head_dim,
        "use_parallel_residual": model.block == "parallel",
        "attention_bias": model.attn_bias,
        "tie_word_embeddings": model.tied_embedding,
    }


def _gptj(model: Model) -> Content:
    return {
        "n_embd": model.d_model,
        "n_inner": model.d_ff,
        "n_layer": model.num_layers,
        "n_head": model.num_heads,
        "vocab_size": model.vocab_size,
        "n_positions": model.max_positions,
        "layer_norm_epsilon": model.norm_epsilon,
        "activation_function": "gelu_new",
        "rotary_dim": model.rotated_dim,
        "tie_word_embeddings": model.tied_embedding,
    }


def _gpt2(model: Model) -> Content:
    content = _gptj(model) | {"activation_function": GELU.get(model.activation, "gelu_new")}
    return {key: value for key, value in content.items() if key != "rotary_dim"}


def _bloom(model: Model) -> Content:
    return {
        "hidden_size": model.d_model,
        "n_layer": model.num_layers,
        "n_head": model.num_heads,
        "vocab_size": model.vocab_size,
        "layer_norm_epsilon": model.norm_epsilon,
        "tie_word_embeddings": model.tied_embedding,
    }


def _opt(model: Model) -> Content:
    return {
        "hidden_size": model.d_model,
        "word_embed_proj_dim": model.d_model,
        "ffn_dim": model.d_ff,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.max_positions,
        "activation_function": GELU.get(model.activation, "relu"),
        "enable_bias": model.attn_bias,
        "tie_word_embeddings": model.tied_embedding,
    }


def _round(value: float) -> float:
    """Without the last digits, which a power and its root leave behind."""
    return float(f"{value:.12g}")


FAMILIES: Final[Mapping[tuple[str, str], Callable[[Model], Content]]] = {
    ("llama", "LlamaForCausalLM"): _llama,
    ("mistral", "MistralForCausalLM"): _mistral,
    ("qwen2", "Qwen2ForCausalLM"): _qwen2,
    ("qwen3", "Qwen3ForCausalLM"): _common,
    ("granite", "GraniteForCausalLM"): _granite,
    ("cohere", "CohereForCausalLM"): _cohere,
    ("gemma", "GemmaForCausalLM"): _gemma,
    ("gemma2", "Gemma2ForCausalLM"): _gemma2,
    ("gemma3_text", "Gemma3ForCausalLM"): _gemma3,
    ("mixtral", "MixtralForCausalLM"): _mixtral,
    ("qwen2_moe", "Qwen2MoeForCausalLM"): _qwen2_moe,
    ("qwen3_moe", "Qwen3MoeForCausalLM"): _qwen3_moe,
    ("gpt_oss", "GptOssForCausalLM"): _gpt_oss,
    ("deepseek_v2", "DeepseekV2ForCausalLM"): _deepseek_v2,
    ("deepseek_v3", "DeepseekV3ForCausalLM"): _deepseek_v3,
    ("gpt_neox", "GPTNeoXForCausalLM"): _neox,
    ("gptj", "GPTJForCausalLM"): _gptj,
    ("gpt2", "GPT2LMHeadModel"): _gpt2,
    ("bloom", "BloomForCausalLM"): _bloom,
    ("opt", "OPTForCausalLM"): _opt,
}
"""(``model_type``, architecture) → what writes the rest of its config, the plainest first."""
