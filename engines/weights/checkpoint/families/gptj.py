"""GPT-J (Wang and Komatsuzaki 2021): parallel, one norm, rotary positions on pairs (2i, 2i + 1), a head with bias."""

from typing import Any, Final

from engines.core.model import Model
from engines.weights.checkpoint.config import GELU, Config
from engines.weights.checkpoint.families.shape import matrices, sizes
from engines.weights.checkpoint.tensor_location import TensorLocation, linear, norm, table, vector

MODULES: Final = {
    "q": "attn.q_proj",
    "k": "attn.k_proj",
    "v": "attn.v_proj",
    "o": "attn.out_proj",
    "wi": "mlp.fc_in",
    "wo": "mlp.fc_out",
}


def fields(config: Config) -> dict[str, Any]:
    """The fields of :class:`Model` that the config sets."""
    if "rotary_dim" in config.content and not config.gives("rotary_dim"):
        raise config.wrong("rotary_dim", "must be an integer ≥ 1")
    found = sizes(config, "n_layer", "n_embd", "n_head")
    return {
        **found,
        "d_ff": config.integer("n_inner", 4 * found["d_model"]),
        "head_dim": config.head_dim("n_embd", "n_head"),
        "block": "parallel",
        "activation": config.word("activation_function", GELU, "gelu_new"),
        "position": "rotary",
        "norm": "layernorm",
        "norms_per_layer": 1,
        "tied_embedding": config.flag("tie_word_embeddings", False),
        "ffn_bias": True,
        "norm_bias": True,
        "lm_head_bias": True,
        "max_positions": config.integer("n_positions", 2048),
        "rotary_dim": config.integer("rotary_dim", 64),
        "rotary_interleaved": True,
        "norm_epsilon": config.number("layer_norm_epsilon", 1e-5),
    }


def locations(model: Model) -> dict[str, TensorLocation]:
    """Location of each canonical tensor in the files, including those that this model does not have."""
    e = model.d_model
    found = {
        "embedding": table("transformer.wte.weight", model.vocab_size, e),
        "lm_head": linear("lm_head.weight", e, model.vocab_size),
        "lm_head_bias": vector("lm_head.bias", model.vocab_size),
        **norm("final_norm", "transformer.ln_f", e),
    }
    for number in range(model.num_layers):
        here, there = f"layers.{number}", f"transformer.h.{number}"
        found |= norm(f"{here}.attn_norm", f"{there}.ln_1", e)
        found |= matrices(model, here, there, MODULES)
    return found
