"""Gemma 1, 2 and 3: a gated GELU, embeddings times √E, norms that scale by 1 + weight."""

import math
from typing import Any, Final

from engines.core.model import Model
from engines.weights.checkpoint.config import GATED, Config, short
from engines.weights.checkpoint.families import llama
from engines.weights.checkpoint.families.shape import matrices, score_scale
from engines.weights.checkpoint.rotary import rotary
from engines.weights.checkpoint.tensor_location import TensorLocation, linear, norm, table
from engines.weights.checkpoint.window import FULL, PATTERN, SLIDING, windows

NORMS: Final = {
    "attn_norm": "input_layernorm",
    "attn_post_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_post_norm": "post_feedforward_layernorm",
}
LOCAL_BASE: Final = "rope_local_base_freq"


def gemma(config: Config) -> dict[str, Any]:
    """Gemma (Gemma Team 2024, arXiv 2403.08295); its ``gelu`` means GELU by tanh."""
    activation = config.word("hidden_act", {**GATED, "gelu": "geglu"}, "gelu_pytorch_tanh")
    config.must_be("hidden_activation", "gelu_pytorch_tanh", means="another activation than hidden_act")
    return _common(config, "hidden_act") | {"activation": activation} | rotary(config)


def gemma2(config: Config) -> dict[str, Any]:
    """Gemma 2 (2024, arXiv 2408.00118): a window in every other layer, norms before and after, softcaps."""
    config.must_be("hidden_act", "gelu_pytorch_tanh", "gelu", means="another activation than hidden_activation")
    found = _common(config, "hidden_activation") | _both_norms(config, attn=50.0, logits=30.0) | rotary(config)
    return found | windows(config, found["num_layers"], found["max_positions"], default=4096, every=2)


def gemma3(config: Config) -> dict[str, Any]:
    """Gemma 3 (2025, arXiv 2503.19786): five layers with a window for one without, and rotary bases of their own."""
    config.must_be("hidden_act", "gelu_pytorch_tanh", "gelu", means="another activation than hidden_activation")
    found = _common(config, "hidden_activation") | _both_norms(config, attn=None, logits=None) | {"qk_norm": True}
    every = config.integer(PATTERN, 6)
    if config.gives("layer_types"):
        config.ignore(PATTERN, f"_{PATTERN}")
    wide = windows(config, found["num_layers"], found["max_positions"], default=4096, every=every, keeps_wide=True)
    return found | wide | _two_bases(config, "attention_window" in wide)


def locations(model: Model) -> dict[str, TensorLocation]:
    """Location of each canonical tensor in the files, including those that this model does not have."""
    e = model.d_model
    names = NORMS if model.norm_position == "both" else {**NORMS, "ffn_norm": "post_attention_layernorm"}
    found = {
        "embedding": table("model.embed_tokens.weight", model.vocab_size, e),
        **norm("final_norm", "model.norm", e, added=1.0),
        "lm_head": linear("lm_head.weight", e, model.vocab_size),
    }
    for number in range(model.num_layers):
        here, there = f"layers.{number}", f"model.layers.{number}"
        for ours, module in names.items():
            found |= norm(f"{here}.{ours}", f"{there}.{module}", e, added=1.0)
        for ours in ("q_norm", "k_norm"):
            found |= norm(f"{here}.{ours}", f"{there}.self_attn.{ours}", model.head_dim, added=1.0)
        found |= matrices(model, here, there, llama.MODULES)
    return found


def _common(config: Config, activation_key: str) -> dict[str, Any]:
    config.require("num_key_value_heads", "head_dim", "max_position_embeddings")
    config.must_be("use_bidirectional_attention", False, means="attention in both directions")
    found = llama.common_fields(config, activation_key=activation_key, activation="gelu_pytorch_tanh")
    return found | {
        "tied_embedding": config.flag("tie_word_embeddings", True),
        "attn_bias": config.flag("attention_bias", False),
        "embedding_scale": math.sqrt(found["d_model"]),
    }


def _both_norms(config: Config, attn: float | None, logits: float | None) -> dict[str, Any]:
    """Norms before and after each half, the scale of scores, and softcaps with their defaults."""
    config.require("query_pre_attn_scalar")
    head_dim = config.integer("head_dim")
    return {
        "norm_position": "both",
        "norms_per_layer": 4,
        "attn_scale": score_scale(config.number("query_pre_attn_scalar") ** -0.5, head_dim),
        "attn_softcap": _softcap(config, "attn_logit_softcapping", attn),
        "logit_softcap": _softcap(config, "final_logit_softcapping", logits),
    }


def _softcap(config: Config, key: str, default: float | None) -> float | None:
    if key not in config.content and default is not None:
        raise config.refused(f"config.json has no {key}, which stands for {default}", f'add "{key}" to it')
    return config.number(key) if config.gives(key) else None


def _two_bases(config: Config, has_windows: bool) -> dict[str, Any]:
    """The rotary fields of layers that see all, and the base of those with a window."""
    given: Any = config.content.get("rope_parameters")
    if not isinstance(given, dict) or not {FULL, SLIDING} & given.keys():
        base = config.number(LOCAL_BASE, 10000.0)
        fields = rotary(config, base=1000000.0)
    else:
        config.read.add("rope_parameters")
        for key in given.keys() - {FULL, SLIDING}:
            raise config.wrong("rope_parameters", f"has {short(key)} beside {FULL} and {SLIDING}")
        parts = [given.get(kind) or {} for kind in (FULL, SLIDING)]
        if not all(isinstance(each, dict) for each in parts):
            raise config.wrong("rope_parameters", f"must have a mapping under {FULL} and {SLIDING}")
        fields = rotary(config, base=1000000.0, given=parts[0])
        config.must_be(LOCAL_BASE, means=f"rope_parameters has a base of {SLIDING}")
        local = rotary(Config(config.path, {"rope_parameters": parts[1]}, config.asked))
        if local.keys() != {"rotary_base"}:
            raise config.wrong("rope_parameters", f"scales {SLIDING}, which is not supported")
        base = local["rotary_base"]
    return fields | ({"rotary_window_base": base} if has_windows else {})
