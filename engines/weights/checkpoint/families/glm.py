"""GLM-4 of 2024 in transformers' layout (GLM 2024, arXiv 2406.12793): half of a head rotated, pairs (2i, 2i + 1)."""

from typing import Any

from engines.core.model import Model
from engines.weights.checkpoint.config import Config
from engines.weights.checkpoint.families.llama import common_fields, outer_locations
from engines.weights.checkpoint.rotary import rotary
from engines.weights.checkpoint.tensor_location import TensorLocation, linear, stacked, with_bias


def fields(config: Config) -> dict[str, Any]:
    """The fields of :class:`Model` that the config sets."""
    found = common_fields(config)
    config.require("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "head_dim")
    bias = config.flag("attention_bias", True)
    return (
        found
        | rotary(config, share=0.5, head_dim=found["head_dim"])
        | {"rotary_interleaved": True, "attn_bias": bias, "attn_output_bias": not bias}
    )


def locations(model: Model) -> dict[str, TensorLocation]:
    """Location of each canonical tensor in the files, including those that this model does not have."""
    e, f = model.d_model, model.d_ff
    q, kv = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    found = outer_locations(model)
    for number in range(model.num_layers):
        here, there = f"layers.{number}", f"model.layers.{number}"
        for name, columns in (("q", q), ("k", kv), ("v", kv)):
            found |= with_bias(f"{here}.{name}", f"{there}.self_attn.{name}_proj", e, columns)
        found |= stacked(here, f"{there}.mlp.gate_up_proj", e, {"gate": f, "up": f})
        found[f"{here}.o"] = linear(f"{there}.self_attn.o_proj.weight", q, e)
        found[f"{here}.wo"] = linear(f"{there}.mlp.down_proj.weight", f, e)
    return found
