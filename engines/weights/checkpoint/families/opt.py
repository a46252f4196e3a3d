"""OPT (Zhang et al. 2022, arXiv 2205.01068): ReLU, learned positions of which the first two are padding's."""

from dataclasses import replace
from typing import Any, Final

from engines.core.model import Model
from engines.weights.checkpoint.config import GELU, Config
from engines.weights.checkpoint.families.shape import matrices, sizes
from engines.weights.checkpoint.tensor_location import TensorLocation, linear, norm, table

MODULES: Final = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.out_proj",
    "wi": "fc1",
    "wo": "fc2",
}
PADDING: Final = 2
"""Rows of the table of positions before that of the first token."""


def fields(config: Config) -> dict[str, Any]:
    """The fields of :class:`Model` that the config sets."""
    found = sizes(config)
    bias = config.flag("enable_bias", True)
    config.must_be("word_embed_proj_dim", found["d_model"], means="another width of its embedding")
    config.must_be("do_layer_norm_before", True, means="norms on the residual stream")
    config.must_be("_remove_final_layer_norm", False, means="no norm before the output")
    config.must_be("layer_norm_elementwise_affine", True, means="norms without a scale")
    return {
        **found,
        "d_ff": config.integer("ffn_dim"),
        "head_dim": config.head_dim(),
        "block": "serial",
        "activation": config.word("activation_function", {"relu": "relu", **GELU}, "relu"),
        "position": "learned",
        "norm": "layernorm",
        "norms_per_layer": 2,
        "tied_embedding": config.flag("tie_word_embeddings", True),
        "attn_bias": bias,
        "ffn_bias": bias,
        "norm_bias": True,
        "max_positions": config.integer("max_position_embeddings", 2048),
    }


def locations(model: Model) -> dict[str, TensorLocation]:
    """Location of each canonical tensor in the files, including those that this model does not have."""
    e, positions = model.d_model, "model.decoder.embed_positions.weight"
    found = {
        "embedding": table("model.decoder.embed_tokens.weight", model.vocab_size, e),
        "positions": replace(
            table(positions, model.max_positions + PADDING, e), rows=model.max_positions, first_row=PADDING
        ),
        "lm_head": linear("lm_head.weight", e, model.vocab_size),
        **norm("final_norm", "model.decoder.final_layer_norm", e),
    }
    for number in range(model.num_layers):
        here, there = f"layers.{number}", f"model.decoder.layers.{number}"
        for ours, module in (("attn_norm", "self_attn_layer_norm"), ("ffn_norm", "final_layer_norm")):
            found |= norm(f"{here}.{ours}", f"{there}.{module}", e)
        found |= matrices(model, here, there, MODULES)
    return found
