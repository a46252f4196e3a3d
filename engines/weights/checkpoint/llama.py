"""Llama and models of the same architecture (Touvron et al. 2023, arXiv 2302.13971): serial, gated, RMSnorm."""

from typing import Any

from engines.core.model import Model
from engines.weights.checkpoint.config import Config, rotary
from engines.weights.checkpoint.tensor_location import TensorLocation, linear, norm, table, with_bias


def fields(config: Config) -> dict[str, Any]:
    """The fields of :class:`Model` that the config sets."""
    config.word("hidden_act", {"silu": "swiglu"}, "silu")
    heads, width = config.integer("num_attention_heads"), config.integer("hidden_size")
    return {
        "num_layers": config.integer("num_hidden_layers"),
        "d_model": width,
        "d_ff": config.integer("intermediate_size"),
        "num_heads": heads,
        "num_kv_heads": config.integer("num_key_value_heads", heads),
        "head_dim": config.integer("head_dim", width // heads),
        "vocab_size": config.integer("vocab_size"),
        "block": "serial",
        "activation": "swiglu",
        "position": "rotary",
        "norm": "rmsnorm",
        "norms_per_layer": 2,
        "tied_embedding": config.flag("tie_word_embeddings", False),
        "attn_bias": config.flag("attention_bias", False),
        "ffn_bias": config.flag("mlp_bias", False),
        "max_positions": config.integer("max_position_embeddings", 2048),
        "norm_epsilon": config.number("rms_norm_eps", 1e-6),
        **rotary(config),
    }


def locations(model: Model) -> dict[str, TensorLocation]:
    """Location of each canonical tensor in the files, including those that this model does not have."""
    e, f = model.d_model, model.d_ff
    q, kv = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    found = {
        "embedding": table("model.embed_tokens.weight", model.vocab_size, e),
        **norm("final_norm", "model.norm", e),
        "lm_head": linear("lm_head.weight", e, model.vocab_size),
    }
    for number in range(model.num_layers):
        here, there = f"layers.{number}", f"model.layers.{number}"
        found |= norm(f"{here}.attn_norm", f"{there}.input_layernorm", e)
        found |= norm(f"{here}.ffn_norm", f"{there}.post_attention_layernorm", e)
        for name, module, rows, columns in (
            ("q", "self_attn.q_proj", e, q),
            ("k", "self_attn.k_proj", e, kv),
            ("v", "self_attn.v_proj", e, kv),
            ("o", "self_attn.o_proj", q, e),
            ("gate", "mlp.gate_proj", e, f),
            ("up", "mlp.up_proj", e, f),
            ("wo", "mlp.down_proj", f, e),
        ):
            found |= with_bias(f"{here}.{name}", f"{there}.{module}", rows, columns)
    return found
