"""StarCoder2 (Lozhkov et al. 2024, arXiv 2402.19173) with a sliding window: serial, GELU, biases."""

from typing import Any, Final

from engines.core.model import Model
from engines.weights.checkpoint.config import GELU, Config
from engines.weights.checkpoint.families.llama import outer_locations
from engines.weights.checkpoint.families.shape import matrices, sizes
from engines.weights.checkpoint.rotary import rotary
from engines.weights.checkpoint.tensor_location import TensorLocation
from engines.weights.checkpoint.window import windows

MODULES: Final = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "wi": "mlp.c_fc",
    "wo": "mlp.c_proj",
}


def fields(config: Config) -> dict[str, Any]:
    """The fields of :class:`Model` that the config sets."""
    positions, bias = config.integer("max_position_embeddings"), config.flag("use_bias", True)
    config.must_be("mlp_type", "default", means="a gated feed-forward")
    config.must_be("norm_type", "layer_norm", means="another norm than layernorm")
    config.ignore("layer_norm_epsilon")  # transformers reads norm_epsilon
    found = sizes(config)
    return {
        **found,
        **windows(config, found["num_layers"], positions),
        "d_ff": config.integer("intermediate_size"),
        "num_kv_heads": config.integer("num_key_value_heads"),
        "head_dim": config.head_dim(),
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
    found = outer_locations(model)
    for number in range(model.num_layers):
        found |= matrices(model, f"layers.{number}", f"model.layers.{number}", MODULES)
    return found
