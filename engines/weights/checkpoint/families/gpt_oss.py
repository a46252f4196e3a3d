"""gpt-oss (OpenAI 2025, arXiv 2508.10925): attention sinks, a window in every other layer, experts with biases."""

from dataclasses import replace
from typing import Any

from engines.core.model import Model
from engines.weights.checkpoint.config import Config
from engines.weights.checkpoint.families import llama
from engines.weights.checkpoint.quantization_config import check_quantized
from engines.weights.checkpoint.rotary import rotary
from engines.weights.checkpoint.tensor_location import (
    TensorLocation,
    interleaved,
    linear,
    stacked_experts,
    vector,
)
from engines.weights.checkpoint.window import windows


def fields(config: Config) -> dict[str, Any]:
    """The fields of :class:`Model` that the config sets."""
    check_quantized(config, "mxfp4")
    config.must_be("hidden_act", "silu", means="another activation")
    config.must_be("swiglu_limit", 7, means="another limit of its activations")
    config.must_be("swiglu_alpha", 1.702, means="another gain of its activations")
    config.require("head_dim", "num_key_value_heads", "max_position_embeddings")
    config.ignore("initial_context_length")  # rope_scaling has it
    per_token = config.integer("num_experts_per_tok", 4)
    config.must_be("experts_per_token", per_token, means=f"num_experts_per_tok says {per_token}")
    if not (config.gives("rope_scaling") or config.gives("rope_parameters")):
        raise config.refused("config.json has neither rope_scaling nor rope_parameters", "add the released ones")
    found = llama.common_fields(config) | rotary(config, base=150000.0)
    return (
        found
        | windows(config, found["num_layers"], found["max_positions"], default=128, every=2)
        | {
            "activation": "swiglu_clamped",
            "norm_epsilon": config.number("rms_norm_eps", 1e-5),
            "attn_bias": config.flag("attention_bias", True),
            "ffn_bias": True,
            "attention_sinks": True,
            "num_experts": config.integer(config.either("num_local_experts", "num_experts"), 128),
            "experts_per_token": per_token,
            "expert_d_ff": found["d_ff"],
            "router_score": "topk_softmax",
            "router_bias": True,
        }
    )


def locations(model: Model) -> dict[str, TensorLocation]:
    """Location of each canonical tensor in the files; experts are stored together, gate and up column by column."""
    e, layer = model.d_model, model.experts
    found = llama.locations(model)
    if layer is None:
        return found
    f, count = layer.expert.d_ff, layer.count
    for number in range(model.num_layers):
        here, there = f"layers.{number}", f"model.layers.{number}"
        found[f"{here}.sinks"] = vector(f"{there}.self_attn.sinks", model.num_heads)
        found[f"{here}.router"] = linear(f"{there}.mlp.router.weight", e, count)
        found[f"{here}.router_bias"] = vector(f"{there}.mlp.router.bias", count)
        ours, module = f"{here}.experts.", f"{there}.mlp.experts"
        one = {}
        for at, name in enumerate(("gate", "up")):
            one[f"{ours}{name}"] = interleaved((e, 2 * f), f"{module}.gate_up_proj", e, f, at, 2)
            one[f"{ours}{name}_bias"] = interleaved((2 * f,), f"{module}.gate_up_proj_bias", 1, f, at, 2)
        one[f"{ours}wo"] = replace(linear(f"{module}.down_proj", f, e), shape=(f, e), transposed=False)
        one[f"{ours}wo_bias"] = vector(f"{module}.down_proj_bias", e)
        found |= stacked_experts(count, False, one)
    return found
