"""Families with Llama's layer and names of tensors, each with keys and defaults of its own."""

from collections.abc import Mapping
from typing import Any

from engines.weights.checkpoint.config import Config
from engines.weights.checkpoint.families import llama
from engines.weights.checkpoint.families.shape import score_scale
from engines.weights.checkpoint.rotary import rotary
from engines.weights.checkpoint.window import all_full, windows


def mistral(config: Config) -> dict[str, Any]:
    """Mistral (Jiang et al. 2023, arXiv 2310.06825): every layer has its sliding window."""
    fields = llama.common_fields(config) | rotary(config)
    config.require("num_key_value_heads", "max_position_embeddings")
    return fields | windows(config, fields["num_layers"], fields["max_positions"], default=4096)


def qwen2(config: Config) -> dict[str, Any]:
    """Qwen 1.5, 2 and 2.5 (Qwen 2024, arXiv 2407.10671): q, k and v have biases, o has none."""
    fields = llama.common_fields(config) | rotary(config)
    config.require("num_key_value_heads", "max_position_embeddings")
    return fields | qwen_windows(config, fields) | {"attn_bias": True, "attn_output_bias": False}


def qwen3(config: Config) -> dict[str, Any]:
    """Qwen 3 (Qwen 2025, arXiv 2505.09388): norms of queries and keys, biases of all projections or of none."""
    fields = llama.common_fields(config) | rotary(config)
    config.require("num_key_value_heads", "head_dim", "max_position_embeddings")
    bias = config.flag("attention_bias", False)
    return fields | qwen_windows(config, fields) | {"attn_bias": bias, "qk_norm": True}


def qwen_windows(config: Config, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The windows of a Qwen: where they are used, those of the layers from ``max_window_layers`` on."""
    if config.flag("use_sliding_window", False):
        first = config.count("max_window_layers", 28)
        found = windows(config, fields["num_layers"], fields["max_positions"], default=4096, first=first)
        if not found:
            config.ignore("use_sliding_window")  # no layer or no text is left for it
        return found
    all_full(config, fields["num_layers"])
    config.ignore("sliding_window", "max_window_layers")
    return {}


def granite(config: Config) -> dict[str, Any]:
    """Granite 3 (IBM 2024): multipliers of embeddings, of what joins the residual stream, of scores and of logits."""
    fields = llama.fields(config)
    config.require("max_position_embeddings", "rms_norm_eps")
    return fields | {
        "embedding_scale": config.number("embedding_multiplier", 1.0),
        "residual_scale": config.number("residual_multiplier", 1.0),
        "logit_scale": 1 / config.number("logits_scaling", 1.0),
        "attn_scale": score_scale(config.number("attention_multiplier", 1.0), fields["head_dim"]),
    }


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
