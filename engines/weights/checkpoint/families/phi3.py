"""Phi-3 and Phi-4 (Abdin et al. 2024, arXiv 2404.14219 and 2412.08905): Llama's layer, with fused matrices."""

from typing import Any

from engines.core.model import Model
from engines.weights.checkpoint.config import Config
from engines.weights.checkpoint.families.llama import common_fields, outer_locations
from engines.weights.checkpoint.rotary import rotary
from engines.weights.checkpoint.tensor_location import TensorLocation, linear, stacked
from engines.weights.checkpoint.window import windows


def fields(config: Config) -> dict[str, Any]:
    """The fields of :class:`Model` that the config sets."""
    found = common_fields(config)
    config.require("max_position_embeddings", "rms_norm_eps")
    original = config.integer("original_max_position_embeddings", 4096)
    config.ignore("original_max_position_embeddings")  # read by the longrope scaling alone
    return (
        found
        | windows(config, found["num_layers"], found["max_positions"])
        | rotary(config, share=1.0, head_dim=found["head_dim"], original=original)
    )


def locations(model: Model) -> dict[str, TensorLocation]:
    """Location of each canonical tensor in the files, including those that this model does not have."""
    e, f = model.d_model, model.d_ff
    q, kv = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    found = outer_locations(model)
    for number in range(model.num_layers):
        here, there = f"layers.{number}", f"model.layers.{number}"
        found |= stacked(here, f"{there}.self_attn.qkv_proj", e, {"q": q, "k": kv, "v": kv})
        found |= stacked(here, f"{there}.mlp.gate_up_proj", e, {"gate": f, "up": f})
        found[f"{here}.o"] = linear(f"{there}.self_attn.o_proj.weight", q, e)
        found[f"{here}.wo"] = linear(f"{there}.mlp.down_proj.weight", f, e)
    return found
