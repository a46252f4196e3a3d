"""StableLM (Bellagente et al. 2024, arXiv 2402.17834): Llama's tensors, with layernorm and a part of a head rotated."""

from typing import Any

from engines.weights.checkpoint.config import Config
from engines.weights.checkpoint.families.llama import common_fields
from engines.weights.checkpoint.rotary import rotary


def fields(config: Config) -> dict[str, Any]:
    """The fields of :class:`engines.core.model.Model` that the config sets; tensors have Llama's names."""
    config.require("num_key_value_heads", "max_position_embeddings", "layer_norm_eps")
    config.must_be("head_dim", config.head_dim(), means="heads of another width than hidden_size / num_attention_heads")
    found = common_fields(config, epsilon_key="layer_norm_eps")
    bias = config.flag("use_qkv_bias", False)
    return (
        found
        | rotary(config, share=0.25)
        | {
            "norm": "layernorm",
            "norm_bias": True,
            "attn_bias": bias,
            "attn_output_bias": not bias,
        }
    )
