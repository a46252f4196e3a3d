"""GPT-NeoX and Pythia (Black et al. 2022, arXiv 2204.06745): two norms, parallel or serial, part of a head rotated."""

from typing import Any

from engines.core.model import Model
from engines.weights.checkpoint.config import GELU, Config
from engines.weights.checkpoint.rotary import rotary
from engines.weights.checkpoint.tensor_location import TensorLocation, fused_qkv, linear, norm, table, with_bias


def fields(config: Config) -> dict[str, Any]:
    """The fields of :class:`Model` that the config sets."""
    heads, width = config.integer("num_attention_heads"), config.integer("hidden_size")
    return {
        "num_layers": config.integer("num_hidden_layers"),
        "d_model": width,
        "d_ff": config.integer("intermediate_size"),
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": config.head_dim(),
        "vocab_size": config.integer("vocab_size"),
        "block": "parallel" if config.flag("use_parallel_residual", True) else "serial",
        "activation": config.word("hidden_act", GELU, "gelu"),
        "position": "rotary",
        "norm": "layernorm",
        "norms_per_layer": 2,
        "tied_embedding": config.flag("tie_word_embeddings", False),
        "attn_bias": config.flag("attention_bias", True),
        "ffn_bias": True,
        "norm_bias": True,
        "max_positions": config.integer("max_position_embeddings", 2048),
        "norm_epsilon": config.number("layer_norm_eps", 1e-5),
        **rotary(config, base_key="rotary_emb_base", share_key="rotary_pct", share=0.25),
    }


def locations(model: Model) -> dict[str, TensorLocation]:
    """Location of each canonical tensor in the files, including those that this model does not have."""
    e, f, q = model.d_model, model.d_ff, model.num_heads * model.head_dim
    found = {
        "embedding": table("gpt_neox.embed_in.weight", model.vocab_size, e),
        "lm_head": linear("embed_out.weight", e, model.vocab_size),
        **norm("final_norm", "gpt_neox.final_layer_norm", e),
    }
    for number in range(model.num_layers):
        here, there = f"layers.{number}", f"gpt_neox.layers.{number}"
        for name, module in (("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")):
            found |= norm(f"{here}.{name}", f"{there}.{module}", e)
        qkv = fused_qkv(f"{there}.attention.query_key_value", e, model.num_heads, 1, model.head_dim)
        found |= {f"{here}.{name}": location for name, location in qkv.items()}
        for name, module, rows, columns in (
            ("o", "attention.dense", q, e),
            ("wi", "mlp.dense_h_to_4h", e, f),
            ("wo", "mlp.dense_4h_to_h", f, e),
        ):
            found |= with_bias(f"{here}.{name}", f"{there}.{module}", rows, columns)
    return found
