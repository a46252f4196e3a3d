"""GPT-2 (Radford et al. 2019) and models of its layer: learned positions, biases everywhere, a tied table."""

from typing import Any

from engines.core.model import Model
from engines.weights.checkpoint.config import GELU, Config
from engines.weights.checkpoint.families.shape import sizes
from engines.weights.checkpoint.tensor_location import TensorLocation, as_used, linear, norm, table


def fields(config: Config, activation: str = "gelu_new") -> dict[str, Any]:
    """The fields of :class:`Model` that the config sets."""
    found = sizes(config, "n_layer", "n_embd", "n_head")
    config.ignore("n_ctx")  # an older name of n_positions, which transformers no longer reads
    return {
        **found,
        "d_ff": config.integer("n_inner", 4 * found["d_model"]),
        "head_dim": config.head_dim("n_embd", "n_head"),
        "block": "serial",
        "activation": config.word("activation_function", GELU, activation),
        "position": "learned",
        "norm": "layernorm",
        "norms_per_layer": 2,
        "tied_embedding": config.flag("tie_word_embeddings", True),
        "attn_bias": True,
        "ffn_bias": True,
        "norm_bias": True,
        "max_positions": config.integer("n_positions", 1024),
        "norm_epsilon": config.number("layer_norm_epsilon", 1e-5),
    }


def locations(model: Model) -> dict[str, TensorLocation]:
    """Location of each canonical tensor in the files; its matrices are stored as they are used, [rows, columns]."""
    e, f, q = model.d_model, model.d_ff, model.num_heads * model.head_dim
    found = outer_locations(model)
    for number in range(model.num_layers):
        here, there = f"layers.{number}", f"transformer.h.{number}"
        found |= as_used(here, f"{there}.attn.c_attn", e, {"q": q, "k": q, "v": q})
        found |= as_used(here, f"{there}.attn.c_proj", q, {"o": e})
        found |= as_used(here, f"{there}.mlp.c_fc", e, {"wi": f})
        found |= as_used(here, f"{there}.mlp.c_proj", f, {"wo": e})
    return found


def outer_locations(model: Model) -> dict[str, TensorLocation]:
    """Embedding, positions, output matrix and all norms under GPT-2's names."""
    e = model.d_model
    found = {
        "embedding": table("transformer.wte.weight", model.vocab_size, e),
        "positions": table("transformer.wpe.weight", model.max_positions, e),
        "lm_head": linear("lm_head.weight", e, model.vocab_size),
        **norm("final_norm", "transformer.ln_f", e),
    }
    for number in range(model.num_layers):
        found |= norm(f"layers.{number}.attn_norm", f"transformer.h.{number}.ln_1", e)
        found |= norm(f"layers.{number}.ffn_norm", f"transformer.h.{number}.ln_2", e)
    return found
