"""Llama's architecture, which is what peers serve."""

from engines.core.errors import Unsupported
from engines.core.model import Model


def check_llama(model: Model, engine: str) -> None:
    """Check that a model has Llama's architecture: a serial block, SwiGLU, RMSnorm, rotary positions and no biases.

    Raises:
        Unsupported: it has another one; names what differs.
    """
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
