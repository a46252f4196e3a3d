"""Mixtral (Jiang et al. 2024, arXiv 2401.04088): Mistral's layer with experts w1, w2 and w3."""

from typing import Any, Final

from engines.core.model import Model
from engines.weights.checkpoint.config import Config
from engines.weights.checkpoint.families import llama
from engines.weights.checkpoint.families.expert_shapes import expert_locations
from engines.weights.checkpoint.rotary import rotary
from engines.weights.checkpoint.tensor_location import TensorLocation
from engines.weights.checkpoint.window import windows

EXPERT: Final = {"gate": "w1", "up": "w3", "wo": "w2"}


def fields(config: Config) -> dict[str, Any]:
    """The fields of :class:`Model` that the config sets."""
    found = llama.common_fields(config) | rotary(config, base=1000000.0)
    config.require("num_key_value_heads", "max_position_embeddings", "rms_norm_eps")
    config.ignore("router_jitter_noise")  # training
    return (
        found
        | windows(config, found["num_layers"], found["max_positions"])
        | {
            "num_experts": config.integer(config.either("num_local_experts", "num_experts"), 8),
            "experts_per_token": config.integer("num_experts_per_tok", 2),
            "expert_d_ff": found["d_ff"],
            "router_normalized": True,
        }
    )


def locations(model: Model) -> dict[str, TensorLocation]:
    """Location of each canonical tensor in the files, including those that this model does not have."""
    found = llama.locations(model)
    for number in range(model.num_layers):
        there = f"model.layers.{number}.block_sparse_moe"
        found |= expert_locations(model, f"layers.{number}", f"{there}.experts.{{}}", EXPERT, f"{there}.gate")
    return found
