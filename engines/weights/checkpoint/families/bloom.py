"""BLOOM (BigScience 2022, arXiv 2211.05100): ALiBi, a norm of the embedding, biases everywhere."""

from typing import Any, Final

from engines.core.model import Model
from engines.weights.checkpoint.config import Config
from engines.weights.checkpoint.families.shape import grouped_qkv, matrices, sizes
from engines.weights.checkpoint.tensor_location import TensorLocation, linear, norm, table

MODULES: Final = {"o": "self_attention.dense", "wi": "mlp.dense_h_to_4h", "wo": "mlp.dense_4h_to_h"}


def fields(config: Config) -> dict[str, Any]:
    """The fields of :class:`Model` that the config sets."""
    width = config.either("hidden_size", "n_embed")
    heads = config.either("n_head", "num_attention_heads")
    found = sizes(config, config.either("n_layer", "num_hidden_layers"), width, heads)
    config.must_be("apply_residual_connection_post_layernorm", False, means="a residual stream that is normed")
    # Training, and how Megatron-DeepSpeed computes the same.
    config.ignore("bias_dropout_fusion", "masked_softmax_fusion", "offset_alibi", "skip_bias_add", "skip_bias_add_qkv")
    config.ignore("slow_but_exact", "seq_length")
    return {
        **found,
        "d_ff": 4 * found["d_model"],
        "head_dim": config.head_dim(width, heads),
        "block": "serial",
        "activation": "gelu_tanh",
        "position": "alibi",
        "norm": "layernorm",
        "norms_per_layer": 2,
        "tied_embedding": config.flag("tie_word_embeddings", True),
        "attn_bias": True,
        "ffn_bias": True,
        "norm_bias": True,
        "embedding_norm": True,
        "norm_epsilon": config.number("layer_norm_epsilon", 1e-5),
    }


def locations(model: Model) -> dict[str, TensorLocation]:
    """Location of each canonical tensor in the files, including those that this model does not have."""
    e = model.d_model
    found = {
        "embedding": table("transformer.word_embeddings.weight", model.vocab_size, e),
        "lm_head": linear("lm_head.weight", e, model.vocab_size),
        **norm("embedding_norm", "transformer.word_embeddings_layernorm", e),
        **norm("final_norm", "transformer.ln_f", e),
    }
    for number in range(model.num_layers):
        here, there = f"layers.{number}", f"transformer.h.{number}"
        for ours, module in (("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")):
            found |= norm(f"{here}.{ours}", f"{there}.{module}", e)
        found |= grouped_qkv(model, here, f"{there}.self_attention.query_key_value")
        found |= matrices(model, here, there, MODULES)
    return found
