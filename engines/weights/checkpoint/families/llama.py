"""Llama and models of the same architecture (Touvron et al. 2023, arXiv 2302.13971): serial, gated, RMSnorm."""

from typing import Any, Final

from engines.core.model import Model
from engines.weights.checkpoint.config import GATED, Config
from engines.weights.checkpoint.families.shape import matrices, sizes
from engines.weights.checkpoint.rotary import rotary
from engines.weights.checkpoint.tensor_location import TensorLocation, linear, norm, table

MODULES: Final = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "wo": "mlp.down_proj",
}


def fields(config: Config) -> dict[str, Any]:
    """The fields of :class:`Model` that the config sets."""
    biases = {
        "attn_bias": config.flag("attention_bias", False),
        "ffn_bias": config.flag("mlp_bias", False),
    }
    return common_fields(config) | rotary(config) | biases


def common_fields(
    config: Config, epsilon_key: str = "rms_norm_eps", activation_key: str = "hidden_act", activation: str = "silu"
) -> dict[str, Any]:
    """What all families have in common that have Llama's layer: all but rotary positions and biases.

    ``epsilon_key`` and ``activation_key`` are the family's own; ``activation`` is the default of the latter.
    """
    found = sizes(config)
    return {
        **found,
        "d_ff": config.integer("intermediate_size"),
        "num_kv_heads": config.integer("num_key_value_heads", found["num_heads"]),
        "head_dim": config.integer("head_dim") if config.gives("head_dim") else config.head_dim(),
        "block": "serial",
        "activation": config.word(activation_key, GATED, activation),
        "position": "rotary",
        "norm": "rmsnorm",
        "norms_per_layer": 2,
        "tied_embedding": config.flag("tie_word_embeddings", False),
        "max_positions": config.integer("max_position_embeddings", 2048),
        "norm_epsilon": config.number(epsilon_key, 1e-6),
    }


def locations(model: Model) -> dict[str, TensorLocation]:
    """Location of each canonical tensor in the files, including those that this model does not have."""
    found = outer_locations(model)
    for number in range(model.num_layers):
        found |= matrices(model, f"layers.{number}", f"model.layers.{number}", MODULES)
    return found


def outer_locations(model: Model) -> dict[str, TensorLocation]:
    """Embedding, output matrix and all norms under Llama's names; those of queries and keys under Qwen's."""
    e = model.d_model
    found = {
        "embedding": table("model.embed_tokens.weight", model.vocab_size, e),
        **norm("final_norm", "model.norm", e),
        "lm_head": linear("lm_head.weight", e, model.vocab_size),
    }
    for number in range(model.num_layers):
        found |= norm(f"layers.{number}.attn_norm", f"model.layers.{number}.input_layernorm", e)
        found |= norm(f"layers.{number}.ffn_norm", f"model.layers.{number}.post_attention_layernorm", e)
        for name in ("q_norm", "k_norm"):
            found |= norm(f"layers.{number}.{name}", f"model.layers.{number}.self_attn.{name}", model.head_dim)
    return found
