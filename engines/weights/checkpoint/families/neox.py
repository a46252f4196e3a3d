"""GPT-NeoX and Pythia (Black et al. 2022, arXiv 2204.06745): two norms, parallel or serial, part of a head rotated."""

from typing import Any, Final

from engines.core.model import Model
from engines.weights.checkpoint.config import GELU, Config
from engines.weights.checkpoint.families.shape import grouped_qkv, matrices, sizes
from engines.weights.checkpoint.rotary import rotary
from engines.weights.checkpoint.tensor_location import TensorLocation, linear, norm, table

MODULES: Final = {"o": "attention.dense", "wi": "mlp.dense_h_to_4h", "wo": "mlp.dense_4h_to_h"}


def fields(config: Config) -> dict[str, Any]:
    """The fields of :class:`Model` that the config sets."""
    return {
        **sizes(config),
        "d_ff": config.integer("intermediate_size"),
        "head_dim": config.head_dim(),
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
    e = model.d_model
    found = {
        "embedding": table("gpt_neox.embed_in.weight", model.vocab_size, e),
        "lm_head": linear("embed_out.weight", e, model.vocab_size),
        **norm("final_norm", "gpt_neox.final_layer_norm", e),
    }
    for number in range(model.num_layers):
        here, there = f"layers.{number}", f"gpt_neox.layers.{number}"
        for name, module in (("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")):
            found |= norm(f"{here}.{name}", f"{there}.{module}", e)
        found |= grouped_qkv(model, here, f"{there}.attention.query_key_value")
        found |= matrices(model, here, there, MODULES)
    return found
