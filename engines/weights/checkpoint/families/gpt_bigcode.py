"""StarCoder and SantaCoder (Li et al. 2023, arXiv 2305.06161): GPT-2's layer with one key/value head."""

from typing import Any

from engines.core.model import Model
from engines.weights.checkpoint.config import Config
from engines.weights.checkpoint.families import gpt2
from engines.weights.checkpoint.tensor_location import TensorLocation, fused_qkv, with_bias


def fields(config: Config) -> dict[str, Any]:
    """The fields of :class:`Model` that the config sets."""
    found = gpt2.fields(config, activation="gelu_pytorch_tanh")
    kv_heads = 1 if config.flag("multi_query", True) else found["num_heads"]
    config.must_be("num_key_value_heads", kv_heads, means="another number than multi_query says")
    return found | {"num_kv_heads": kv_heads}


def locations(model: Model) -> dict[str, TensorLocation]:
    """Location of each canonical tensor in the files, including those that this model does not have."""
    e, f, q = model.d_model, model.d_ff, model.num_heads * model.head_dim
    found = gpt2.outer_locations(model)
    for number in range(model.num_layers):
        here, there = f"layers.{number}", f"transformer.h.{number}"
        qkv = fused_qkv(
            f"{there}.attn.c_attn", e, model.num_kv_heads, model.num_heads // model.num_kv_heads, model.head_dim
        )
        found |= {f"{here}.{name}": location for name, location in qkv.items()}
        for name, module, rows, columns in (
            ("o", "attn.c_proj", q, e),
            ("wi", "mlp.c_fc", e, f),
            ("wo", "mlp.c_proj", f, e),
        ):
            found |= with_bias(f"{here}.{name}", f"{there}.{module}", rows, columns)
    return found
