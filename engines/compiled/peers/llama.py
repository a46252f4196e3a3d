"""Llama's architecture and the number formats in which peers serve it."""

from typing import Final

from engines.core.errors import Unsupported
from engines.core.point import Point

FORMATS: Final = {"weight_dtype": ("bfloat16", "int8"), "kv_dtype": ("bfloat16", "int8"), "act_dtype": ("bfloat16",)}


def check_llama(point: Point, engine: str) -> None:
    """Check that a model has Llama's architecture (a serial block, SwiGLU, RMSnorm, rotary positions, no biases), and
    the point one of :data:`FORMATS`.

    Raises:
        Unsupported: it has another one; names what differs.
    """
    model = point.model
    features = {
        "block=serial": model.block == "serial",
        "activation=swiglu": model.ffn.gated,
        "position=rotary": model.position == "rotary",
        "rotary_dim=null": model.rotated_dim == model.head_dim and not model.rotary_interleaved,
        "norm=rmsnorm": model.norm == "rmsnorm",
        "tied_embedding=false": not model.tied_embedding,
        "no biases": not (model.attn_bias or model.ffn_bias or model.norm_bias or model.lm_head_bias),
    }
    missing = [name for name, has in features.items() if not has]
    if missing:
        raise Unsupported(
            f"model={model.name}: engine={engine} has Llama's architecture alone ({missing[0]}); "
            "use such a model, as model=llama-3-8b"
        )
    for name, allowed in FORMATS.items():
        if getattr(point, name) not in allowed:
            raise Unsupported(f"{name}={getattr(point, name)}: engine={engine} has {' and '.join(allowed)}")
