"""Families that are known and not supported, with what shardbench lacks for each."""

from collections.abc import Mapping
from typing import Final

from engines.core.errors import InvalidRequest
from engines.weights.checkpoint.config import Config, short
from engines.weights.checkpoint.files import CONFIG
from engines.weights.checkpoint.keys import features_of

MOST: Final = 3
"""Features of an unknown family that an error names."""
_UNDESCRIBED: Final = "a description of its keys and tensors"
_NO_POSITIONS: Final = "layers without positions"
_CHOSEN: Final = "attention to chosen tokens"
_WIDE_NORM: Final = "norms of queries and keys over all heads at once"
_LATE_NORM: Final = "norms of queries and keys after their rotation"
_STATE: Final = "layers that keep a state instead of keys and values"
_WRAPPER: Final = "inputs other than text"
_ENCODER: Final = "an encoder"
_BOTH_WAYS: Final = "attention in both directions, and no output of tokens"
_OWN_CODE: Final = "code that comes with the checkpoint and is not part of transformers"

LACKS: Final[Mapping[str, str]] = {
    "afmoe": f"{_NO_POSITIONS}, and gated attention",
    "apertus": "an activation with learned shape",
    "arcee": "a feed-forward with squared ReLU",
    "arctic": "experts beside a dense feed-forward",
    "baichuan": "one matrix of queries, keys and values, an output matrix that is normalised or positions by ALiBi",
    "bailing_moe": _UNDESCRIBED,
    "bamba": _STATE,
    "bart": _ENCODER,
    "bert": _BOTH_WAYS,
    "biogpt": "scaled embeddings and positions that start at 2",
    "bitnet": "weights of three values",
    "chatglm": _OWN_CODE,
    "codegen": "the order in which it stores queries, keys and values",
    "cohere2": _NO_POSITIONS,
    "ctrl": "positions of fixed waves",
    "dbrx": "clipped queries, keys and values",
    "deberta": _BOTH_WAYS,
    "deci": "layers of different sizes",
    "nemotron-nas": "layers of different sizes",
    "deepseek": _UNDESCRIBED,
    "deepseek_v32": _CHOSEN,
    "diffllama": "attention as a difference of two",
    "distilbert": _BOTH_WAYS,
    "doge": "attention under a learned mask",
    "dots1": _UNDESCRIBED,
    "electra": _BOTH_WAYS,
    "ernie4_5_moe": _UNDESCRIBED,
    "exaone": _OWN_CODE,
    "exaone4": _NO_POSITIONS,
    "falcon_h1": _STATE,
    "falcon_mamba": _STATE,
    "flex_olmo": _WIDE_NORM,
    "gemma3": _WRAPPER,
    "gemma3n": f"{_WRAPPER}; and embeddings of each layer",
    "gemma3n_text": "embeddings of each layer",
    "gemma4": _WRAPPER,
    "glm4": _UNDESCRIBED,
    "glm4_moe": _UNDESCRIBED,
    "glm_moe_dsa": _CHOSEN,
    "gpt_neo": "attention within a window in the even layers, and not in the odd ones",
    "gpt_neox_japanese": "biases in its last layer alone",
    "granitemoe": _UNDESCRIBED,
    "granitemoehybrid": _STATE,
    "grok-1": _OWN_CODE,
    "hunyuan_v1_dense": _LATE_NORM,
    "hunyuan_v1_moe": _LATE_NORM,
    "internlm": _OWN_CODE,
    "internlm2": _OWN_CODE,
    "internlm3": _OWN_CODE,
    "jais": _UNDESCRIBED,
    "jamba": _STATE,
    "jetmoe": "experts of attention",
    "kimi_k25": _WRAPPER,
    "kimi_linear": _STATE,
    "lfm2": _STATE,
    "llama4": f"{_WRAPPER}; and {_NO_POSITIONS}",
    "llama4_text": _NO_POSITIONS,
    "llava": _WRAPPER,
    "longcat_flash": "experts that do nothing",
    "mamba": _STATE,
    "mamba2": _STATE,
    "mimo": "layers that predict further tokens",
    "mimo_v2_flash": "heads of another size in layers with a window",
    "minicpm": _UNDESCRIBED,
    "minicpm3": _UNDESCRIBED,
    "minimax": _STATE,
    "minimax_m2": _WIDE_NORM,
    "minimax_text_01": _STATE,
    "minimax_m1": _STATE,
    "mistral3": _WRAPPER,
    "mllama": _WRAPPER,
    "modernbert": _BOTH_WAYS,
    "mpt": _UNDESCRIBED,
    "nanochat": "a feed-forward with squared ReLU",
    "nemotron": "a feed-forward with squared ReLU, and norms that scale by 1 + weight",
    "nemotron_h": _STATE,
    "olmo": "norms without a scale",
    "olmo2": _WIDE_NORM,
    "olmo3": _WIDE_NORM,
    "olmoe": _WIDE_NORM,
    "paligemma": _WRAPPER,
    "persimmon": "a feed-forward with squared ReLU",
    "phi4_multimodal": _WRAPPER,
    "phi4mm": _WRAPPER,
    "phimoe": "a router that masks by a threshold",
    "pixtral": _WRAPPER,
    "qwen": _OWN_CODE,
    "qwen2_5_vl": _WRAPPER,
    "qwen2_vl": _WRAPPER,
    "qwen3_5": f"{_WRAPPER}; and {_STATE}",
    "qwen3_5_moe": f"{_WRAPPER}; and {_STATE}",
    "qwen3_next": _STATE,
    "qwen3_vl": _WRAPPER,
    "qwen3_vl_moe": _WRAPPER,
    "recurrent_gemma": _STATE,
    "roberta": _BOTH_WAYS,
    "rwkv": _STATE,
    "smollm3": _NO_POSITIONS,
    "solar": "connections between distant layers",
    "t5": _ENCODER,
    "whisper": f"{_ENCODER}, and {_WRAPPER}",
    "xglm": "scaled embeddings, and positions of fixed waves",
    "xlnet": "attention to a former segment",
    "xlstm": _STATE,
    "zamba": _STATE,
    "zamba2": _STATE,
}
"""``model_type`` in small letters → what is missing to read it."""
OLD_NAMES: Final[Mapping[str, str]] = {
    "mixformer-sequential": "phi",
    "phi-msft": "phi",
    "refinedweb": "falcon",
    "refinedwebmodel": "falcon",
    "stablelm_epoch": "stablelm",
    "yi": "llama",
}
"""``model_type`` in small letters, from before a family was part of transformers → what it became."""


def unreadable(config: Config, known: tuple[str, ...]) -> InvalidRequest:
    """The error for a config whose family is not supported, naming what is missing where that is known."""
    family = config.model_type.lower()
    if family in OLD_NAMES:
        new = OLD_NAMES[family]
        return config.refused(
            f"is of model_type={config.model_type}, the layout of {new} before it was part of transformers",
            f"download the checkpoint again; its newer {CONFIG} is of model_type={new}",
        )
    lacks, found = LACKS.get(family), features_of(config)
    asked = ", ".join([f"{means} ({key})" for means, key in found.items()][:MOST])
    why = f"shardbench lacks {lacks}" if lacks else "shardbench does not know its layers"
    if not lacks and asked:
        why += f", which have {asked}"
    return config.refused(
        f"is of model_type={short(config.model_type)}, which is not supported: {why}",
        f"use one of the {len(known)} families that shardbench model reads, such as {', '.join(known[:MOST])}",
    )
