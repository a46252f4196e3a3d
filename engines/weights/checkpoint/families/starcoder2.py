"""StarCoder2 (Lozhkov et al. 2024, arXiv 2402.19173) without its sliding window: serial, GELU, biases."""

from typing import Any

from engines.core.model import Model
from engines.weights.checkpoint.config import GELU, Config
from engines.weights.checkpoint.families.llama import outer_locations
from engines.weights.checkpoint.rotary import rotary
from engines.weights.checkpoint.tensor_location import TensorLocation, with_bias
from engines.weights.checkpoint.window import check_window


def fields(config: Config) -> dict[str, Any]:
    """The fields of :class:`Model` that the config sets."""
    positions, bias = config.integer("max_position_embeddings"), config.flag("use_bias", True)
    check_window(config, positions)
    config.must_be("mlp_type", "default", means="a gated feed-forward")
    config.must_be("norm_type", "layer_norm", means="another norm than layernorm")
    config.ignore("layer_norm_epsilon")  # transformers reads norm_epsilon
    return {
        "num_layers": config.integer("num_hidden_layers"),
        "d_model": config.integer("hidden_size"),
        "d_ff": config.integer("intermediate_size"),
        "num_heads": config.integer("num_attention_heads"),
        "num_kv_heads": config.integer("num_key_value_heads"),
        "head_dim": config.head_dim(),
        "vocab_size": config.integer("vocab_size"),
        "block": "serial",
        "activation": config.word("hidden_act", GELU, "gelu_pytorch_tanh"),
        "position": "rotary",
        "norm": "layernorm",
        "norms_per_layer": 2,
        "tied_embedding": config.flag("tie_word_embeddings", True),
        "attn_bias": bias,
        "ffn_bias": bias,
        "norm_bias": True,
        "max_positions": positions,
        "norm_epsilon": config.number("norm_epsilon", 1e-5),
        **rotary(config),
    }


def locations(model: Model) -> dict[str, TensorLocation]:
    """Location of each canonical tensor in the files, including those that this model does not have."""
    e, f = model.d_model, model.d_ff
    q, kv = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    found = outer_locations(model)
    for number in range(model.num_layers):
        here, there = f"layers.{number}", f"model.layers.{number}"
        for name, module, rows, columns in (
            ("q", "self_attn.q_proj", e, q),
            ("k", "self_attn.k_proj", e, kv),
            ("v", "self_attn.v_proj", e, kv),
            ("o", "self_attn.o_proj", q, e),
            ("wi", "mlp.c_fc", e, f),
            ("wo", "mlp.c_proj", f, e),
        ):
            found |= with_bias(f"{here}.{name}", f"{there}.{module}", rows, columns)
    return found
