"""DeepSeek-V2, V3, R1 and Kimi K2: latent attention (arXiv 2405.04434), experts beside shared ones (2412.19437)."""

from typing import Any, Final

from engines.core.model import Model
from engines.weights.checkpoint.config import Config
from engines.weights.checkpoint.families import llama
from engines.weights.checkpoint.families.expert_shapes import EXPERT, expert_locations, feed_forward_locations
from engines.weights.checkpoint.families.shape import matrices, score_scale
from engines.weights.checkpoint.quantization_config import check_quantized
from engines.weights.checkpoint.rotary import mscale, rotary
from engines.weights.checkpoint.tensor_location import TensorLocation, by_head, linear, norm, vector

DENSE: Final = {"gate": "mlp.gate_proj", "up": "mlp.up_proj", "wo": "mlp.down_proj"}


def v2(config: Config) -> dict[str, Any]:
    """DeepSeek-V2 and V2-Lite: softmax over all experts, of which groups may be left out by their best one."""
    config.must_be("norm_topk_prob", False, means="weights of experts that are divided by their sum")
    config.must_be("scoring_func", "softmax", means="another score of experts")
    method = config.word("topk_method", {"greedy": "", "group_limited_greedy": "groups"}, "greedy")
    found = _attention(config) | {"rotary_interleaved": True}
    return found | _experts(config, bool(method), {"router_group_best": 1} if method else {})


def v3(config: Config) -> dict[str, Any]:
    """DeepSeek-V3, R1 and Kimi K2: sigmoids with a correction for the choice, groups by their two best experts."""
    config.must_be("topk_method", "noaux_tc", means="another choice of experts")
    config.must_be("scoring_func", "sigmoid", means="another score of experts")
    check_quantized(config, "fp8")
    found = _attention(config) | {"rotary_interleaved": config.flag("rope_interleave", True)}
    config.count("num_nextn_predict_layers", 1)
    config.ignore("num_nextn_predict_layers", "num_mtp_layers")  # layers beside the model's own
    router = {
        "router_score": "sigmoid",
        "router_correction": True,
        "router_normalized": config.flag("norm_topk_prob", True),
    }
    return found | _experts(config, True, router)


def locations(model: Model) -> dict[str, TensorLocation]:
    """Location of each canonical tensor in the files, including those that this model does not have."""
    e, heads = model.d_model, model.num_heads
    queries, latent = model.q_latent_dim or 1, model.kv_latent_dim or 1
    value = model.attention.value_dim
    found = llama.outer_locations(model)
    for number in range(model.num_layers):
        here, there = f"layers.{number}", f"model.layers.{number}"
        attn = f"{there}.self_attn"
        found |= {
            f"{here}.q": linear(f"{attn}.q_proj.weight", e, heads * model.head_dim),
            f"{here}.q_a": linear(f"{attn}.q_a_proj.weight", e, queries),
            f"{here}.q_b": linear(f"{attn}.q_b_proj.weight", queries, heads * model.head_dim),
            f"{here}.kv_a": linear(f"{attn}.kv_a_proj_with_mqa.weight", e, latent + model.rotated_dim),
            f"{here}.o": linear(f"{attn}.o_proj.weight", heads * value, e),
            **norm(f"{here}.q_a_norm", f"{attn}.q_a_layernorm", queries),
            **norm(f"{here}.kv_a_norm", f"{attn}.kv_a_layernorm", latent),
        }
        parts = {f"{here}.k_b": model.head_dim - model.rotated_dim, f"{here}.v_b": value}
        found |= by_head(f"{attn}.kv_b_proj.weight", latent, heads, parts)
        found |= matrices(model, here, there, DENSE)
        found |= expert_locations(model, here, f"{there}.mlp.experts.{{}}", EXPERT, f"{there}.mlp.gate")
        if model.experts is not None:
            correction = f"{there}.mlp.gate.e_score_correction_bias"
            found[f"{here}.router_correction"] = vector(correction, model.experts.count)
            if model.experts.shared is not None:
                shared = f"{there}.mlp.shared_experts"
                found |= feed_forward_locations(model.experts.shared, f"{here}.shared.", shared, EXPERT)
    return found


def is_apart(model: Model, name: str) -> bool:
    """Whether a stored tensor is of the layers after the last, which predict further tokens."""
    first, _, rest = name.removeprefix("model.").partition(".")
    number = rest.partition(".")[0]
    return first == "layers" and number.isdecimal() and int(number) >= model.num_layers


def _attention(config: Config) -> dict[str, Any]:
    found = llama.common_fields(config)
    config.require("max_position_embeddings", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
    config.must_be("num_key_value_heads", found["num_heads"], means="fewer heads of keys than of queries")
    config.must_be("attention_bias", False, means="biases of latent attention")
    config.must_be("mlp_bias", False, means="biases of its feed-forward")
    config.must_be("rms_norm_eps", 1e-6, means="norms of latents have 1e-06, whatever the others have")
    turned, still = config.integer("qk_rope_head_dim"), config.integer("qk_nope_head_dim")
    config.must_be("head_dim", turned, means="it is qk_rope_head_dim")
    config.must_be("qk_head_dim", turned + still, means="it is qk_nope_head_dim + qk_rope_head_dim")
    config.must_be("ep_size", 1, means="files of several ranks")
    config.ignore("aux_loss_alpha", "seq_aux")  # training
    return {
        **found,
        **rotary(config),
        "num_kv_heads": found["num_heads"],
        "head_dim": turned + still,
        "rotary_dim": turned,
        "attn_scale": _score_scale(config, turned + still),
        "q_latent_dim": config.integer("q_lora_rank") if config.gives("q_lora_rank") else None,
        "kv_latent_dim": config.integer("kv_lora_rank"),
        "value_head_dim": config.integer("v_head_dim"),
    }


def _score_scale(config: Config, head_dim: int) -> float | None:
    """Scores are multiplied by YaRN's factor twice where it has ``mscale_all_dim``: once for q, once for k."""
    given = config.content.get("rope_scaling") or config.content.get("rope_parameters") or {}
    read = Config(config.path, given, config.asked)
    scaled = read.gives("mscale_all_dim") and read.gives("factor")
    by = mscale(read.number("factor"), read.number("mscale_all_dim")) if scaled else 1.0
    return score_scale(head_dim**-0.5 * by * by, head_dim)


def _experts(config: Config, grouped: bool, router: dict[str, Any]) -> dict[str, Any]:
    """The fields about experts; none where every layer is dense."""
    config.must_be("moe_layer_freq", 1, means="experts in every second layer, or fewer")
    config.require("n_routed_experts", "num_experts_per_tok", "moe_intermediate_size", "n_shared_experts")
    width, first = config.integer("moe_intermediate_size"), config.count("first_k_dense_replace", 1)
    shared, groups = config.integer("n_shared_experts") * width, {}
    scale = config.number("routed_scaling_factor", 1.0)
    if grouped:
        groups = {
            "router_groups": config.integer("n_group", 1),
            "router_groups_kept": config.integer("topk_group", 1),
        }
    else:
        config.ignore("n_group", "topk_group")
    chosen = {
        "num_experts": config.integer("n_routed_experts"),
        "experts_per_token": config.integer("num_experts_per_tok"),
        "expert_d_ff": width,
        "shared_expert_d_ff": shared,
        "dense_layers": first or None,
        "router_scale": scale,
        **groups,
        **router,
    }
    return {} if first >= config.integer("num_hidden_layers") else chosen
