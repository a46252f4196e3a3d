"""Phi-1, Phi-1.5 and Phi-2 (Gunasekar et al. 2023, arXiv 2306.11644): parallel, one norm, biases everywhere."""

from typing import Any

from engines.core.model import Model
from engines.weights.checkpoint.config import GELU, Config
from engines.weights.checkpoint.rotary import rotary
from engines.weights.checkpoint.tensor_location import TensorLocation, linear, norm, table, vector, with_bias


def fields(config: Config) -> dict[str, Any]:
    """The fields of :class:`Model` that the config sets."""
    heads = config.integer("num_attention_heads")
    return {
        "num_layers": config.integer("num_hidden_layers"),
        "d_model": config.integer("hidden_size"),
        "d_ff": config.integer("intermediate_size"),
        "num_heads": heads,
        "num_kv_heads": config.integer("num_key_value_heads", heads),
        "head_dim": config.head_dim(),
        "vocab_size": config.integer("vocab_size"),
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
    e, f = model.d_model, model.d_ff
    q, kv = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    found = {
        "embedding": table("model.embed_tokens.weight", model.vocab_size, e),
        "lm_head": linear("lm_head.weight", e, model.vocab_size),
        "lm_head_bias": vector("lm_head.bias", model.vocab_size),
        **norm("final_norm", "model.final_layernorm", e),
    }
    for number in range(model.num_layers):
        here, there = f"layers.{number}", f"model.layers.{number}"
        found |= norm(f"{here}.attn_norm", f"{there}.input_layernorm", e)
        for name, module, rows, columns in (
            ("q", "self_attn.q_proj", e, q),
            ("k", "self_attn.k_proj", e, kv),
            ("v", "self_attn.v_proj", e, kv),
            ("o", "self_attn.dense", q, e),
            ("wi", "mlp.fc1", e, f),
            ("wo", "mlp.fc2", f, e),
        ):
            found |= with_bias(f"{here}.{name}", f"{there}.{module}", rows, columns)
    return found
