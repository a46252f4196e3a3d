"""Keys of a ``config.json`` that no family read: each changes nothing, is off, or is refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from engines.weights.checkpoint.config import Config, same, short
from engines.weights.checkpoint.files import CONFIG
from engines.weights.checkpoint.unused import UNUSED
from engines.weights.checkpoint.window import all_full

OFF: Final[tuple[Any, ...]] = (False, 0, "", [], {})


@dataclass(frozen=True, slots=True)
class Feature:
    """What a key adds to the model, and the values besides null with which it adds nothing."""

    means: str
    off: tuple[Any, ...] = OFF


def _features(means: str, keys: str, *off: Any) -> dict[str, Feature]:
    return {key: Feature(means, off or OFF) for key in keys.split()}


FEATURES: Final[Mapping[str, Feature]] = {
    **_features("quantized weights", "quantization_config compression_config quantization quant_config"),
    **_features(
        "a mixture of experts",
        "num_experts num_local_experts n_routed_experts moe_num_experts num_experts_per_tok num_experts_per_token "
        "experts_per_token n_shared_experts num_shared_experts moe_intermediate_size shared_expert_intermediate_size "
        "moe_layer_freq decoder_sparse_step mlp_only_layers ffn_config enable_moe_block use_moe first_k_dense_replace "
        "moe_topk moe_num_shared_experts",
    ),
    **_features(
        "keys and values in a latent space", "q_lora_rank kv_lora_rank qk_rope_head_dim qk_nope_head_dim v_head_dim"
    ),
    **_features(
        "a draft model",
        "draft_vocab_size target_hidden_size target_layer_ids eagle_config medusa_num_heads medusa_num_layers "
        "speculators_config fc_bias num_lookahead_tokens",
    ),
    **_features(
        "layers that predict further tokens", "num_nextn_predict_layers num_mtp_layers mtp_num_layers n_predict"
    ),
    **_features(
        "a model in a wrapper of several",
        "text_config llm_config language_config thinker_config vision_config audio_config visual mm_vision_tower "
        "image_token_index projector_hidden_act",
    ),
    **_features("an encoder beside the decoder", "is_encoder_decoder encoder_layers num_encoder_layers encoder"),
    **_features("attention to another model", "add_cross_attention cross_attention_hidden_size cross_attention_layers"),
    **_features("weights shared between layers", "tie_encoder_decoder num_kv_shared_layers share_layers"),
    **_features(
        "attention within a window",
        "sliding_window use_sliding_window sliding_window_size sliding_window_pattern window_size attention_window "
        "attention_chunk_size attention_types local_attention",
    ),
    **_features("positions by ALiBi", "alibi use_alibi"),
    **_features("positions that are not rotary", "position_embedding_type", "rotary", "rope"),
    **_features("positions in several dimensions", "use_mrope mrope_section"),
    **_features("layers without positions", "no_rope_layers no_rope_layer_interval nope_layer_interval"),
    **_features("rotary positions of another base in some layers", "rope_local_base_freq local_rope_theta"),
    **_features("scaled rotary positions", "rope_scaling rope_parameters rope_ratio use_dynamic_ntk"),
    **_features("rotary positions on a part of each head", "partial_rotary_factor rotary_pct rotary_percentage", 1),
    **_features("a scaling of rotary positions", "rotary_scaling_factor", 1),
    **_features("rotary positions on neighbouring pairs", "rope_interleaved rotary_interleaved"),
    **_features("no rotary positions", "rotary use_rope use_rotary_pos_emb", True),
    **_features("norms of queries and keys", "qk_layernorm use_qk_norm qk_norm use_qk_layernorm"),
    **_features("clipped queries, keys and values", "clip_qkv"),
    **_features(
        "softcapped logits", "final_logit_softcapping attn_logit_softcapping logits_soft_cap output_logit_softcap"
    ),
    **_features(
        "scaled logits, embeddings or residuals",
        "logit_scale embedding_multiplier residual_multiplier logits_scaling scale_emb scale_depth lm_head_multiplier "
        "embedding_scale mup_width_multiplier mup_scale_factor mup_embeddings_scale scale_embeddings dim_model_base",
        False,
        1,
    ),
    **_features(
        "another scale of attention scores", "attention_multiplier query_pre_attn_scalar attn_scale softmax_scale"
    ),
    **_features("another scale of attention scores", "scale_attn_by_inverse_layer_idx"),
    **_features("attention scores without a scale", "scale_attn_weights", True),
    **_features("another place of its norms", "apply_residual_connection_post_layernorm use_post_norm sandwich_norm"),
    **_features("another place of its norms", "do_layer_norm_before", True),
    **_features("another width of its embedding", "word_embed_proj_dim embedding_size emb_dim"),
    **_features(
        "layers of different kinds", "block_configs layers_block_type hybrid_override_pattern attn_layer_indices"
    ),
    **_features("layers that keep a state", "state_size ssm_state_size d_state mamba_d_state full_attention_interval"),
    **_features("attention sinks", "attention_sinks sink_size"),
    **_features("a limit of its activations", "swiglu_limit activation_limit"),
    **_features("heads that were removed", "pruned_heads"),
    **_features("attention in both directions", "is_causal causal use_causal_mask is_decoder_only", True),
    **_features("attention in both directions", "bidirectional use_bidirectional_attention prefix_lm"),
    **_features("adapters beside its weights", "lora_rank lora_alpha lora_adapters adapters adapter_config"),
    **_features(
        "biases", "add_qkv_bias add_bias_linear qkv_bias use_qkv_bias no_bias use_bias attention_bias mlp_bias bias"
    ),
    **_features("another kind of block", "parallel_attn use_parallel_residual parallel_residual"),
}
"""Keys that change the model from those that are supported, unless a family reads them itself."""

FORMATS: Final = ("float32", "bfloat16", "float16", "auto")
"""Formats of stored weights that leave the choice of ``weight_dtype`` open."""


def check_rest(config: Config) -> list[str]:
    """Check every key that the family did not read; the keys that are unknown, empty and so taken as changing nothing.

    Raises:
        InvalidRequest: a key changes the model, or is unknown and might.
    """
    unknown = []
    for key in ("torch_dtype", "dtype"):
        value = config.content.get(key)
        if value is not None and str(value).removeprefix("torch.") not in FORMATS:
            raise config.wrong(key, f"must be one of {', '.join(FORMATS)}")
        config.ignore(key)
    if "layer_types" not in config.read:
        all_full(config, config.content.get("num_hidden_layers", 0))
    if config.content.get("use_sliding_window") is False and "sliding_window" not in config.read:
        config.ignore("sliding_window", "max_window_layers")
    for key, value in config.content.items():
        if key in config.read or value is None:
            continue
        if key in UNUSED:
            config.ignore(key)
        elif key in FEATURES:
            if not same(value, FEATURES[key].off):
                raise config.wrong(key, f"is not supported: {FEATURES[key].means}")
            config.read.add(key)
        elif same(value, OFF):
            unknown.append(key)
        else:
            raise config.refused(
                f"{CONFIG} has {short(key)}={short(value)}, a key that is not known for model_type={config.model_type} "
                "and may change the model",
                "delete the key if it changes nothing",
            )
    return unknown


def features_of(config: Config) -> dict[str, str]:
    """What the config asks for that families read themselves or none supports: what it means → the first key of it."""
    found: dict[str, str] = {}
    for key, feature in FEATURES.items():
        value = config.content.get(key)
        if value is not None and not same(value, feature.off):
            plain = isinstance(value, (bool, int, float, str))
            found.setdefault(feature.means, f"{key}={short(value)}" if plain else key)
    return found
