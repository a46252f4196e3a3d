"""Falcon (Almazrouei et al. 2023, arXiv 2311.16867): multiquery in parallel with one norm, or grouped with two."""

from typing import Any, Final

from engines.core.model import Model
from engines.weights.checkpoint.config import GELU, Config
from engines.weights.checkpoint.families.shape import grouped_qkv, matrices, sizes
from engines.weights.checkpoint.rotary import rotary
from engines.weights.checkpoint.tensor_location import TensorLocation, linear, norm, table

MODULES: Final = {"o": "self_attention.dense", "wi": "mlp.dense_h_to_4h", "wo": "mlp.dense_4h_to_h"}


def fields(config: Config) -> dict[str, Any]:
    """The fields of :class:`Model` that the config sets."""
    found = sizes(config)
    heads, width = found["num_heads"], found["d_model"]
    grouped = config.flag("new_decoder_architecture", False)
    parallel = grouped or config.flag("parallel_attn", True)
    kv_heads = config.integer("num_kv_heads", heads)
    if grouped:
        config.ignore("multi_query")
        config.must_be("parallel_attn", True, means="a serial block in the new layout")
    elif config.flag("multi_query", True):
        config.ignore("num_kv_heads")
        kv_heads = 1
    else:
        config.must_be("num_kv_heads", heads, means="groups of heads in the old layout")
    norms = config.integer("num_ln_in_parallel_attn", 2 if grouped else 1) if parallel else 2
    if not parallel:
        config.ignore("num_ln_in_parallel_attn")
    elif norms > (2 if grouped else 1):
        raise config.wrong("num_ln_in_parallel_attn", f"must be 1{' or 2' if grouped else ' in the old layout'}")
    bias = config.flag("bias", False)
    return {
        **found,
        "d_ff": config.integer("ffn_hidden_size", 4 * width),
        "num_kv_heads": kv_heads,
        "head_dim": config.head_dim(),
        "block": "parallel" if parallel else "serial",
        "activation": config.word("activation", GELU, "gelu"),
        "position": "rotary",
        "norm": "layernorm",
        "norms_per_layer": norms,
        "tied_embedding": config.flag("tie_word_embeddings", True),
        "attn_bias": bias,
        "ffn_bias": bias,
        "norm_bias": True,
        "max_positions": config.integer("max_position_embeddings", 2048),
        "norm_epsilon": config.number("layer_norm_epsilon", 1e-5),
        **rotary(config),
    }


def locations(model: Model) -> dict[str, TensorLocation]:
    """Location of each canonical tensor in the files, including those that this model does not have."""
    e = model.d_model
    found = {
        "embedding": table("transformer.word_embeddings.weight", model.vocab_size, e),
        "lm_head": linear("lm_head.weight", e, model.vocab_size),
        **norm("final_norm", "transformer.ln_f", e),
    }
    both = model.block == "parallel" and model.norms_per_layer == 2
    norms = ("ln_attn", "ln_mlp") if both else ("input_layernorm", "post_attention_layernorm")
    for number in range(model.num_layers):
        here, there = f"layers.{number}", f"transformer.h.{number}"
        for name, module in zip(("attn_norm", "ffn_norm"), norms, strict=True):
            found |= norm(f"{here}.{name}", f"{there}.{module}", e)
        found |= grouped_qkv(model, here, f"{there}.self_attention.query_key_value")
        found |= matrices(model, here, there, MODULES)
    return found
