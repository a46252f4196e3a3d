"""What families with experts share: which layers have some, and where the tensors of each expert lie."""

from collections.abc import Mapping
from typing import Any, Final

from engines.core.feed_forward import FeedForward
from engines.core.model import Model
from engines.weights.checkpoint.config import Config
from engines.weights.checkpoint.tensor_location import TensorLocation, linear, stacked_experts, vector, with_bias

EXPERT: Final = {"gate": "gate_proj", "up": "up_proj", "wo": "down_proj"}
"""Canonical name → module of a feed-forward, of a Llama's names."""


def dense_layers(config: Config) -> dict[str, Any]:
    """``dense_layers`` by ``mlp_only_layers``, which must be the first ones; every other layer has experts.

    Raises:
        InvalidRequest: other layers are dense.
    """
    config.must_be("decoder_sparse_step", 1, means="experts in every second layer, or fewer")
    listed = config.content.get("mlp_only_layers") or []
    config.read.add("mlp_only_layers")
    if not isinstance(listed, list) or sorted(map(str, listed)) != sorted(map(str, range(len(listed)))):
        raise config.wrong("mlp_only_layers", "is not supported: dense layers other than the first")
    return {"dense_layers": len(listed) or None}


def expert_locations(
    model: Model, here: str, there: str, modules: Mapping[str, str], router: str
) -> dict[str, TensorLocation]:
    """The router and the experts of the layer ``here``, each expert's matrices in Linears of their own.

    ``there`` has ``{}`` for the number of the expert.
    """
    layer = model.experts
    if layer is None:
        return {}
    one = feed_forward_locations(layer.expert, f"{here}.experts.", there, modules)
    return {
        **stacked_experts(layer.count, True, one),
        f"{here}.router": linear(f"{router}.weight", model.d_model, layer.count),
        f"{here}.router_bias": vector(f"{router}.bias", layer.count),
    }


def feed_forward_locations(
    ffn: FeedForward, ours: str, there: str, modules: Mapping[str, str]
) -> dict[str, TensorLocation]:
    """The tensors of one feed-forward, each in a ``torch.nn.Linear`` of its own under ``there``."""
    found: dict[str, TensorLocation] = {}
    for name in (*ffn.inputs, ffn.output):
        e, f = ffn.d_model, ffn.d_ff
        found |= with_bias(f"{ours}{name}", f"{there}.{modules[name]}", *((f, e) if name == ffn.output else (e, f)))
    return found
