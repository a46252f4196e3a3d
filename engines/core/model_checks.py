"""Whether the keys of a model go together."""

from typing import TYPE_CHECKING, Final

from engines.core.errors import InvalidRequest

if TYPE_CHECKING:
    from engines.core.model import Model


MOST: Final = 100_000
"""Of what is listed one by one, the most: each layer has a kind, each head a slope, each pair of a head an angle."""


def check_model(model: "Model") -> None:
    """Check that the keys are consistent.

    Raises:
        InvalidRequest: two keys contradict each other; names the key, its value and what would do.
    """
    _check_counts(model)
    _check_heads(model)
    _check_rotary(model)
    _check_norms(model)
    _check_windows(model)
    _check_latent(model)
    _check_experts(model)


def _check_counts(model: "Model") -> None:
    for name in ("num_layers", "num_heads", "head_dim", "num_experts"):
        value = getattr(model, name)
        if value is not None and value > MOST:
            raise InvalidRequest(f"model.{name}", value, f"is larger than {MOST}, as no model is", "correct it")


def _check_heads(model: "Model") -> None:
    if model.num_heads % model.num_kv_heads:
        raise InvalidRequest(
            "model.num_kv_heads",
            model.num_kv_heads,
            f"must divide num_heads={model.num_heads}",
            "every key/value head serves the same number of query heads",
        )
    if not (model.attn_bias or model.attn_output_bias):
        raise InvalidRequest(
            "model.attn_output_bias",
            False,
            "must be true without attn_bias",
            "it takes a bias out of attn_bias's four",
        )
    if model.position == "rotary" and (model.rotated_dim % 2 or model.rotated_dim > model.head_dim):
        raise InvalidRequest(
            "model.rotary_dim",
            model.rotated_dim,
            f"must be even and ≤ head_dim={model.head_dim}",
            "rotary embeddings rotate pairs of a head's dimensions",
        )


def _check_rotary(model: "Model") -> None:
    scaling, pairs = model.rotary_scaling, model.rotated_dim // 2
    if scaling not in (None, "linear") and model.rotary_original_positions is None:
        raise InvalidRequest(
            "model.rotary_scaling",
            scaling,
            "stretches positions beyond the original ones",
            "set rotary_original_positions too",
        )
    for name in ("rotary_short_factors", "rotary_long_factors"):
        factors = getattr(model, name)
        if (len(factors) if factors else None) != (pairs if scaling == "long" else None):
            raise InvalidRequest(
                f"model.{name}",
                factors,
                f"must be one divisor for each of the {pairs} pairs of rotary_scaling=long, and no others have them",
                "give as many as half of rotary_dim, or leave it out",
            )
    if (scaling == "dynamic" and model.rotated_dim <= 2) or (scaling == "yarn" and model.rotary_base <= 1):
        raise InvalidRequest(
            "model.rotary_scaling", scaling, "needs a base > 1 and more than one pair", "use rotary_scaling=linear"
        )


def _check_norms(model: "Model") -> None:
    if model.block == "parallel" and model.norm_position != "before":
        raise InvalidRequest(
            "model.norm_position", model.norm_position, "needs a serial block", "use before, or block=serial"
        )
    wanted = 4 if model.norm_position == "both" else 2
    if model.block == "serial" and model.norms_per_layer != wanted:
        raise InvalidRequest(
            "model.norms_per_layer",
            model.norms_per_layer,
            f"must be {wanted} for a serial block"
            + ("" if model.norm_position == "before" else f" with norm_position={model.norm_position}"),
            f"use {wanted}",
        )


def _check_windows(model: "Model") -> None:
    if model.global_every is not None and model.attention_window is None:
        raise InvalidRequest(
            "model.global_every",
            model.global_every,
            "says which layers see beyond a window, and there is none",
            "set attention_window too, or leave it out",
        )


def _check_latent(model: "Model") -> None:
    if model.kv_latent_dim is None:
        for name in ("q_latent_dim", "value_head_dim"):
            if getattr(model, name) is not None:
                raise InvalidRequest(
                    f"model.{name}",
                    getattr(model, name),
                    "is a size of latent attention",
                    "set kv_latent_dim too, or leave it out",
                )
        return
    if model.num_kv_heads != model.num_heads:
        raise InvalidRequest(
            "model.num_kv_heads",
            model.num_kv_heads,
            f"must be num_heads={model.num_heads} with kv_latent_dim",
            "every head makes its own keys and values from the latent vector",
        )
    if model.position != "rotary" or model.rotary_dim is None or model.rotary_dim >= model.head_dim:
        raise InvalidRequest(
            "model.rotary_dim",
            model.rotary_dim,
            "must be the part of head_dim that turns and that all heads share, with kv_latent_dim",
            "use position=rotary and a rotary_dim below head_dim",
        )

    for name in ("attn_bias", "qk_norm", "attention_sinks"):
        if getattr(model, name):
            raise InvalidRequest(f"model.{name}", True, "does not go with kv_latent_dim", "use false")
    if model.block != "serial":
        raise InvalidRequest("model.block", model.block, "does not go with kv_latent_dim", "use serial")


def _check_experts(model: "Model") -> None:
    if model.num_experts is None:
        for name in ("experts_per_token", "expert_d_ff", "shared_expert_d_ff", "dense_layers"):
            if getattr(model, name) is not None:
                raise InvalidRequest(
                    f"model.{name}", getattr(model, name), "needs experts", "set num_experts too, or leave it out"
                )
        return
    chosen = model.experts_per_token
    if chosen is None or chosen > model.num_experts:
        raise InvalidRequest(
            "model.experts_per_token",
            chosen,
            f"must be a number of the num_experts={model.num_experts}",
            "say how many experts a token goes to",
        )
    if model.block != "serial":
        raise InvalidRequest("model.block", model.block, "does not go with experts", "use serial")
    if model.dense_layers is not None and model.dense_layers >= model.num_layers:
        raise InvalidRequest(
            "model.dense_layers",
            model.dense_layers,
            f"must leave layers with experts of num_layers={model.num_layers}",
            "use fewer, or leave num_experts out",
        )
    if model.num_experts % model.router_groups or model.router_groups_kept > model.router_groups:
        raise InvalidRequest(
            "model.router_groups",
            model.router_groups,
            f"must divide num_experts={model.num_experts} and be ≥ router_groups_kept={model.router_groups_kept}",
            "use equal groups of experts",
        )
    if model.router_groups_kept * (model.num_experts // model.router_groups) < chosen:
        raise InvalidRequest(
            "model.router_groups_kept",
            model.router_groups_kept,
            f"leaves fewer experts than experts_per_token={chosen}",
            "keep more groups",
        )
