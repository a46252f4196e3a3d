"""What families share: the sizes that configs name alike, and the shapes of a layer's matrices."""

import math
from collections.abc import Mapping
from typing import Any

from engines.core.model import Model
from engines.weights.checkpoint.config import Config
from engines.weights.checkpoint.tensor_location import TensorLocation, fused_qkv, with_bias


def sizes(
    config: Config, layers: str = "num_hidden_layers", width: str = "hidden_size", heads: str = "num_attention_heads"
) -> dict[str, Any]:
    """Depth, width, heads and vocabulary under the keys of the config that hold them.

    There are as many key/value heads as query heads unless the family overrides it.
    """
    count = config.integer(heads)
    return {
        "num_layers": config.integer(layers),
        "d_model": config.integer(width),
        "num_heads": count,
        "num_kv_heads": count,
        "vocab_size": config.integer("vocab_size"),
    }


def score_scale(scale: float, head_dim: int) -> float | None:
    """``attn_scale`` of a model: None where it is that of all models, head_dim^(−1/2)."""
    return None if math.isclose(scale, head_dim**-0.5, rel_tol=1e-9) else scale


def matrices(model: Model, here: str, there: str, modules: Mapping[str, str]) -> dict[str, TensorLocation]:
    """Matrices of the layer ``here`` with their biases, each in a ``torch.nn.Linear`` of its own under ``there``.

    ``modules`` maps canonical names (:mod:`engines.weights.random`) to modules.
    """
    e, f = model.d_model, model.d_ff
    q, kv = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    shapes = {
        "q": (e, q), "k": (e, kv), "v": (e, kv), "o": (q, e),
        "gate": (e, f), "up": (e, f), "wi": (e, f), "wo": (f, e),
    }  # fmt: skip
    found: dict[str, TensorLocation] = {}
    for name, module in modules.items():
        found |= with_bias(f"{here}.{name}", f"{there}.{module}", *shapes[name])
    return found


def grouped_qkv(model: Model, here: str, module: str) -> dict[str, TensorLocation]:
    """q, k and v of the layer ``here`` in one Linear, group by group; see :func:`fused_qkv`."""
    found = fused_qkv(module, model.d_model, model.num_kv_heads, model.num_heads // model.num_kv_heads, model.head_dim)
    return {f"{here}.{name}": location for name, location in found.items()}
