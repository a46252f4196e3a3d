"""StarCoder and SantaCoder (Li et al. 2023, arXiv 2305.06161): GPT-2's layer with one key/value head."""

from typing import Any, Final

from engines.core.model import Model
from engines.weights.checkpoint.config import Config
from engines.weights.checkpoint.families import gpt2
from engines.weights.checkpoint.families.shape import grouped_qkv, matrices
from engines.weights.checkpoint.tensor_location import TensorLocation

MODULES: Final = {"o": "attn.c_proj", "wi": "mlp.c_fc", "wo": "mlp.c_proj"}


def fields(config: Config) -> dict[str, Any]:
    """The fields of :class:`Model` that the config sets."""
    found = gpt2.fields(config, activation="gelu_pytorch_tanh")
    kv_heads = 1 if config.flag("multi_query", True) else found["num_heads"]
    config.must_be("num_key_value_heads", kv_heads, means="another number than multi_query says")
    return found | {"num_kv_heads": kv_heads}


def locations(model: Model) -> dict[str, TensorLocation]:
    """Location of each canonical tensor in the files, including those that this model does not have."""
    found = gpt2.outer_locations(model)
    for number in range(model.num_layers):
        here, there = f"layers.{number}", f"transformer.h.{number}"
        found |= grouped_qkv(model, here, f"{there}.attn.c_attn")
        found |= matrices(model, here, there, MODULES)
    return found
