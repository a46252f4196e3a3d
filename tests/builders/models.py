"""Small models of each kind."""

from dataclasses import replace
from typing import Any

from engines.core.model import Model


def small_model(**changes: Any) -> Model:
    """Two layers of 32 columns; ``changes`` are fields of it."""
    base: dict[str, Any] = {
        "name": "small",
        "num_layers": 2,
        "d_model": 32,
        "d_ff": 64,
        "num_heads": 4,
        "num_kv_heads": 1,
        "head_dim": 8,
        "vocab_size": 61,
        "block": "parallel",
        "activation": "swiglu",
        "position": "rotary",
        "norm": "layernorm",
        "norms_per_layer": 1,
        "tied_embedding": True,
        "max_positions": 64,
        "published_params": 1.0,
        "mfu_params": 1.0,
        "source": "made for this test",
    }
    return Model(**{**base, **changes})


MODELS = {
    "palm": small_model(),
    "gpt": small_model(
        block="serial",
        activation="gelu_tanh",
        position="learned",
        num_kv_heads=4,
        norms_per_layer=2,
        attn_bias=True,
        ffn_bias=True,
        norm_bias=True,
    ),
    "llama": small_model(
        block="serial", norm="rmsnorm", num_heads=6, num_kv_heads=2, norms_per_layer=2, tied_embedding=False
    ),
    "falcon": small_model(
        norms_per_layer=2,
        num_heads=16,
        num_kv_heads=2,
        activation="gelu",
        rotary_dim=4,
        rotary_interleaved=True,
        tied_embedding=False,
        lm_head_bias=True,
        norm_bias=True,
    ),
    "no positions": small_model(position="none", norm="rmsnorm", num_heads=8, num_kv_heads=8),
}
MODELS |= {
    "deepseek": small_model(
        block="serial",
        norm="rmsnorm",
        norms_per_layer=2,
        num_heads=8,
        num_kv_heads=8,
        head_dim=10,
        rotary_dim=4,
        rotary_interleaved=True,
        q_latent_dim=12,
        kv_latent_dim=11,
        value_head_dim=5,
        tied_embedding=False,
    ),
}
MODELS |= {"deepseek lite": replace(MODELS["deepseek"], q_latent_dim=None, num_heads=6, num_kv_heads=6)}


def moe_model(**changes: Any) -> Model:
    """Two layers with eight experts, two of which a token goes to; ``changes`` are fields of it."""
    base: dict[str, Any] = {
        "block": "serial",
        "norms_per_layer": 2,
        "norm": "rmsnorm",
        "num_experts": 8,
        "experts_per_token": 2,
        "expert_d_ff": 64,
    }
    return small_model(**{**base, **changes})
