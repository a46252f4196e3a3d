"""Command R (Cohere 2024): parallel, one layernorm without bias, rotary pairs (2i, 2i + 1), scaled logits."""

from typing import Any

from engines.weights.checkpoint.config import Config
from engines.weights.checkpoint.families import llama
from engines.weights.checkpoint.rotary import rotary


def fields(config: Config) -> dict[str, Any]:
    """The fields of :class:`engines.core.model.Model` that the config sets; tensors have Llama's names."""
    config.require("max_position_embeddings", "layer_norm_eps", "logit_scale")
    config.must_be("use_qk_norm", False, means="norms of queries and keys with a scale for each head")
    config.ignore("model_max_length")
    return (
        llama.common_fields(config, epsilon_key="layer_norm_eps")
        | rotary(config, base=500000.0)
        | {
            "head_dim": config.head_dim(),
            "block": "parallel",
            "norm": "layernorm",
            "norms_per_layer": 1,
            "tied_embedding": config.flag("tie_word_embeddings", True),
            "attn_bias": config.flag("attention_bias", False),
            "rotary_interleaved": True,
            "logit_scale": config.number("logit_scale"),
        }
    )
