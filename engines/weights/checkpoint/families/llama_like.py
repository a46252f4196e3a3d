"""Families with Llama's layer and names of tensors, each with keys and defaults of its own."""

from typing import Any

from engines.weights.checkpoint.config import Config
from engines.weights.checkpoint.families import llama
from engines.weights.checkpoint.rotary import rotary
from engines.weights.checkpoint.window import check_window


def mistral(config: Config) -> dict[str, Any]:
    """Mistral (Jiang et al. 2023, arXiv 2310.06825) without its sliding window."""
    fields = llama.common_fields(config) | rotary(config)
    config.require("num_key_value_heads", "max_position_embeddings")
    check_window(config, fields["max_positions"], default=4096)
    return fields


def qwen2(config: Config) -> dict[str, Any]:
    """Qwen 1.5, 2 and 2.5 (Qwen 2024, arXiv 2407.10671): q, k and v have biases, o has none."""
    fields = llama.common_fields(config) | rotary(config)
    config.require("num_key_value_heads", "max_position_embeddings")
    if config.flag("use_sliding_window", False):
        check_window(config, fields["max_positions"], default=4096)
    else:
        config.ignore("sliding_window", "max_window_layers")
    return fields | {"attn_bias": True, "attn_output_bias": False}


def seed_oss(config: Config) -> dict[str, Any]:
    """Seed-OSS (ByteDance 2025): biases of q, k and v, and of o where asked."""
    fields = llama.common_fields(config) | rotary(config)
    config.require("num_key_value_heads", "head_dim", "max_position_embeddings")
    bias = config.flag("attention_bias", True)
    out_bias = config.flag("attention_out_bias", False)
    if out_bias and not bias:
        raise config.wrong("attention_out_bias", "is not supported: a bias of the output projection alone")
    return fields | {
        "attn_bias": bias,
        "attn_output_bias": out_bias or not bias,
        "ffn_bias": config.flag("mlp_bias", False),
    }


def helium(config: Config) -> dict[str, Any]:
    """Helium (Kyutai 2025): rotary positions on pairs (2i, 2i + 1)."""
    fields = llama.common_fields(config) | rotary(config)
    config.require("num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps")
    if fields["num_heads"] * fields["head_dim"] != fields["d_model"]:
        raise config.wrong("head_dim", f"times num_attention_heads must be hidden_size={fields['d_model']}")
    bias = config.flag("attention_bias", False)
    return fields | {
        "attn_bias": bias,
        "attn_output_bias": not bias,
        "ffn_bias": config.flag("mlp_bias", False),
        "rotary_interleaved": True,
    }
