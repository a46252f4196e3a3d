"""Phi-1, Phi-1.5 and Phi-2 (Gunasekar et al. 2023, arXiv 2306.11644): parallel, one norm, biases everywhere."""

from typing import Any, Final

from engines.core.model import Model
from engines.weights.checkpoint.config import GELU, Config
from engines.weights.checkpoint.families.shape import matrices, sizes
from engines.weights.checkpoint.rotary import rotary
from engines.weights.checkpoint.tensor_location import TensorLocation, linear, norm, table, vector

MODULES: Final = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.dense",
    "wi": "mlp.fc1",
    "wo": "mlp.fc2",
}


def fields(config: Config) -> dict[str, Any]:
    """The fields of :class:`Model` that the config sets."""
    found = sizes(config)
    return {
        **found,
        "d_ff": config.integer("intermediate_size"),
        "num_kv_heads": config.integer("num_key_value_heads", found["num_heads"]),
        "head_dim": config.head_dim(),
        "block": "parallel",
        "activation": config.word("hidden_act", GELU, "gelu_new"),
        "position": "rotary",
        "norm": "layernorm",
        "norms_per_layer": 1,
        "tied_embedding": config.flag("tie_word_embeddings", False),
        "attn_bias": True,
        "ffn_bias": True,
        "norm_bias": True,
        "lm_head_bias": True,
        "max_positions": config.integer("max_position_embeddings", 2048),
        "norm_epsilon": config.number("layer_norm_eps", 1e-5),
        **rotary(config, share=0.5),
    }


def locations(model: Model) -> dict[str, TensorLocation]:
    """Location of each canonical tensor in the files, including those that this model does not have."""
    e = model.d_model
    found = {
        "embedding": table("model.embed_tokens.weight", model.vocab_size, e),
        "lm_head": linear("lm_head.weight", e, model.vocab_size),
        "lm_head_bias": vector("lm_head.bias", model.vocab_size),
        **norm("final_norm", "model.final_layernorm", e),
    }
    for number in range(model.num_layers):
        here, there = f"layers.{number}", f"model.layers.{number}"
        found |= norm(f"{here}.attn_norm", f"{there}.input_layernorm", e)
        found |= matrices(model, here, there, MODULES)
    return found
