"""Qwen 1.5, 2 and 3 with experts (Qwen 2024, arXiv 2407.10671; 2025, arXiv 2505.09388)."""

from typing import Any

from engines.core.model import Model
from engines.weights.checkpoint.config import Config
from engines.weights.checkpoint.families import llama, llama_like
from engines.weights.checkpoint.families.expert_shapes import (
    EXPERT,
    dense_layers,
    expert_locations,
    feed_forward_locations,
)
from engines.weights.checkpoint.rotary import rotary
from engines.weights.checkpoint.tensor_location import TensorLocation, linear


def qwen2_moe(config: Config) -> dict[str, Any]:
    """Qwen 1.5 and 2: biases of q, k and v, one shared expert with a gate of its own."""
    found = llama.common_fields(config) | rotary(config)
    config.require("num_key_value_heads", "max_position_embeddings", "shared_expert_intermediate_size")
    config.must_be("use_sliding_window", False, means="attention within a window in some layers")
    bias = config.flag("qkv_bias", True)
    return (
        found
        | llama_like.qwen_windows(config, found)
        | _experts(config, num_experts=60, per_token=4)
        | {
            "attn_bias": bias,
            "attn_output_bias": not bias,
            "shared_expert_d_ff": config.integer("shared_expert_intermediate_size"),
            "shared_expert_gate": True,
        }
    )


def qwen3_moe(config: Config) -> dict[str, Any]:
    """Qwen 3: norms of queries and keys, no shared expert."""
    config.require("moe_intermediate_size", "num_experts_per_tok")
    return llama_like.qwen3(config) | _experts(config, num_experts=128, per_token=8)


def locations(model: Model) -> dict[str, TensorLocation]:
    """Location of each canonical tensor in the files, including those that this model does not have."""
    found = llama.locations(model)
    for number in range(model.num_layers):
        here, there = f"layers.{number}", f"model.layers.{number}.mlp"
        found |= expert_locations(model, here, f"{there}.experts.{{}}", EXPERT, f"{there}.gate")
        found[f"{here}.shared_gate"] = linear(f"{there}.shared_expert_gate.weight", model.d_model, 1)
        if model.experts is not None and model.experts.shared is not None:
            found |= feed_forward_locations(model.experts.shared, f"{here}.shared.", f"{there}.shared_expert", EXPERT)
    return found


def _experts(config: Config, num_experts: int, per_token: int) -> dict[str, Any]:
    return {
        "num_experts": config.integer(config.either("num_experts", "num_local_experts"), num_experts),
        "experts_per_token": config.integer("num_experts_per_tok", per_token),
        "expert_d_ff": config.integer("moe_intermediate_size"),
        "router_normalized": config.flag("norm_topk_prob", False),
        **dense_layers(config),
    }
