"""What the closed forms read of a model, as the plain values of a grid's arrays."""

from typing import Any

from engines.core.model import Model


def model_arrays(model: Model) -> dict[str, Any]:
    """Array of a grid → its value for a model; what the model has not is 0."""
    windows = [kind.window for kind in model.layer_kinds if kind.window is not None]
    return {
        "layers": float(model.num_layers),
        "window_layers": float(len(windows)),
        "dense_layers": float(sum(not kind.has_experts for kind in model.layer_kinds)),
        "expert_layers": float(sum(kind.has_experts for kind in model.layer_kinds)),
        "d_model": float(model.d_model),
        "heads": float(model.num_heads),
        "kv_heads": float(model.num_kv_heads),
        "max_head_shards": float(1 << (model.num_heads - 1).bit_length()),
        "head_dim": float(model.head_dim),
        "window": float(windows[0] if windows else 0),
        "chunked": model.window_kind == "chunked",
        "latent": model.attention.is_latent,
        "kv_latent": float(model.kv_latent_dim or 0),
        "q_latent": float(model.q_latent_dim or 0),
        "rotated": float(model.rotated_dim if model.attention.is_latent else 0),
        "value_dim": float(model.attention.value_dim),
        "vocab": 0.0 if model.encoder else float(model.vocab_size),
        "tables": 1.0 if model.tied_embedding else 2.0,
        "ffn_params": float(model.ffn.matmul_params),
        "ffn_active_params": float(model.ffn.active_params),
        "ffn_inputs": float(model.ffn.input_columns),
        "ffn_hidden": float(model.ffn.hidden_columns),
        **_experts(model),
        "serial": model.block == "serial",
        "mfu_params": float(model.mfu_params),
    }


def _experts(model: Model) -> dict[str, float]:
    """The arrays about a model's experts, 0 where it has none."""
    experts = model.experts
    one, shared = (None, None) if experts is None else (experts.expert, experts.shared)
    return {
        "num_experts": 0.0 if experts is None else float(experts.count),
        "experts_per_token": 0.0 if experts is None else float(experts.per_token),
        "expert_params": 0.0 if one is None else float(one.matmul_params),
        "expert_inputs": 0.0 if one is None else float(one.input_columns),
        "expert_hidden": 0.0 if one is None else float(one.hidden_columns),
        "expert_groups": float(model.router_groups),
        "expert_groups_kept": float(model.router_groups_kept),
        "shared_params": 0.0 if shared is None else float(shared.matmul_params),
        "shared_inputs": 0.0 if shared is None else float(shared.input_columns),
        "shared_hidden": 0.0 if shared is None else float(shared.hidden_columns),
    }
