"""Families that are known and not supported, with what shardbench lacks for each."""

from collections.abc import Mapping
from typing import Final

from engines.core.errors import InvalidRequest
from engines.weights.checkpoint.config import Config, short
from engines.weights.checkpoint.files import CONFIG
from engines.weights.checkpoint.keys import features_of

MOST: Final = 3
"""Features of an unknown family that an error names."""
_EXPERTS: Final = "a mixture of experts"
_LATENT: Final = "a mixture of experts, and keys and values in a latent space"
_STATE: Final = "layers that keep a state instead of keys and values"
_ALIBI: Final = "positions by ALiBi"
_QK_NORM: Final = "norms of queries and keys"
_GEMMA: Final = "a gated GELU, scaled embeddings, and norms that scale by 1 + weight"
_GEMMA_2: Final = f"{_GEMMA}, four norms a layer, and attention within a window"
_WRAPPER: Final = "inputs other than text"
_ENCODER: Final = "an encoder"
_BOTH_WAYS: Final = "attention in both directions, and no output of tokens"
_MULTIPLIERS: Final = "multipliers of embeddings, residuals, attention and logits"
_OWN_CODE: Final = "code that comes with the checkpoint and is not part of transformers"

LACKS: Final[Mapping[str, str]] = {
    "afmoe": _EXPERTS,
    "apertus": f"an activation with learned shape, and {_QK_NORM}",
    "arcee": "a feed-forward with squared ReLU",
    "arctic": f"{_EXPERTS} beside a dense feed-forward",
    "baichuan": "one matrix of queries, keys and values, an output matrix that is normalised or positions by ALiBi",
    "bailing_moe": _EXPERTS,
    "bamba": _STATE,
    "bart": _ENCODER,
    "bert": _BOTH_WAYS,
    "biogpt": "scaled embeddings and positions that start at 2",
    "bitnet": "weights of three values",
    "chatglm": _OWN_CODE,
    "codegen": "the order in which it stores queries, keys and values",
    "cohere2": "logits that are scaled, and attention within a window",
    "ctrl": "positions of fixed waves",
    "dbrx": _EXPERTS,
    "deberta": _BOTH_WAYS,
    "deci": "layers of different sizes",
    "nemotron-nas": "layers of different sizes",
    "deepseek": _EXPERTS,
    "deepseek_v32": f"{_LATENT}, and attention to chosen tokens",
    "diffllama": "attention as a difference of two",
    "distilbert": _BOTH_WAYS,
    "doge": _EXPERTS,
    "dots1": f"{_EXPERTS}, and {_QK_NORM}",
    "electra": _BOTH_WAYS,
    "ernie4_5_moe": _EXPERTS,
    "exaone": _OWN_CODE,
    "exaone4": f"{_QK_NORM}, norms after each half of a layer, and attention within a window",
    "falcon_h1": _STATE,
    "falcon_mamba": _STATE,
    "flex_olmo": f"{_EXPERTS}, and {_QK_NORM}",
    "gemma3": f"{_WRAPPER}; and {_GEMMA_2}",
    "gemma3n": f"{_WRAPPER}; and {_GEMMA_2}",
    "gemma4": f"{_WRAPPER}; and {_GEMMA_2}",
    "glm4": "norms after each half of a layer",
    "glm4_moe": f"{_EXPERTS}, and {_QK_NORM}",
    "glm_moe_dsa": f"{_LATENT}, and attention to chosen tokens",
    "gpt_neo": "attention within a window in every second layer, and scores without a scale",
    "gpt_neox_japanese": "biases in its last layer alone",
    "granitemoe": f"{_EXPERTS}, and {_MULTIPLIERS}",
    "granitemoehybrid": f"{_STATE}, {_EXPERTS}, and {_MULTIPLIERS}",
    "grok-1": _EXPERTS,
    "hunyuan_v1_dense": _QK_NORM,
    "hunyuan_v1_moe": f"{_EXPERTS}, and {_QK_NORM}",
    "internlm": _OWN_CODE,
    "internlm2": _OWN_CODE,
    "internlm3": _OWN_CODE,
    "jais": _ALIBI,
    "jamba": f"{_STATE}, and {_EXPERTS}",
    "jetmoe": _EXPERTS,
    "kimi_k25": f"{_WRAPPER}; and {_LATENT}",
    "kimi_linear": f"{_STATE}, and {_LATENT}",
    "lfm2": _STATE,
    "llama4": f"{_WRAPPER}; and {_EXPERTS}",
    "llama4_text": f"{_EXPERTS}, and layers without positions",
    "llava": _WRAPPER,
    "longcat_flash": _LATENT,
    "mamba": _STATE,
    "mamba2": _STATE,
    "mimo": "layers that predict further tokens",
    "mimo_v2_flash": f"{_EXPERTS}, and attention within a window",
    "minicpm": _MULTIPLIERS,
    "minicpm3": f"{_MULTIPLIERS}, and keys and values in a latent space",
    "minimax": f"{_STATE}, and {_EXPERTS}",
    "minimax_m2": f"{_EXPERTS}, and {_QK_NORM}",
    "minimax_text_01": f"{_STATE}, and {_EXPERTS}",
    "minimax_m1": f"{_STATE}, and {_EXPERTS}",
    "mistral3": _WRAPPER,
    "mllama": _WRAPPER,
    "modernbert": _BOTH_WAYS,
    "mpt": _ALIBI,
    "nanochat": f"{_QK_NORM}, and a feed-forward with squared ReLU",
    "nemotron": "a feed-forward with squared ReLU, and norms that scale by 1 + weight",
    "nemotron_h": _STATE,
    "olmo": "norms without a scale",
    "olmo2": f"{_QK_NORM}, and norms after each half of a layer",
    "olmo3": f"{_QK_NORM}, norms after each half of a layer, and attention within a window",
    "olmoe": f"{_EXPERTS}, and {_QK_NORM}",
    "paligemma": _WRAPPER,
    "persimmon": f"{_QK_NORM}, and a feed-forward with squared ReLU",
    "phi4_multimodal": _WRAPPER,
    "phi4mm": _WRAPPER,
    "phimoe": f"{_EXPERTS}, and attention within a window",
    "pixtral": _WRAPPER,
    "qwen": _OWN_CODE,
    "qwen2_5_vl": _WRAPPER,
    "qwen2_vl": _WRAPPER,
    "qwen3_5": f"{_WRAPPER}; and {_STATE}",
    "qwen3_5_moe": f"{_WRAPPER}; {_STATE}, and {_EXPERTS}",
    "qwen3_next": f"{_STATE}, and {_EXPERTS}",
    "qwen3_vl": _WRAPPER,
    "qwen3_vl_moe": f"{_WRAPPER}; and {_EXPERTS}",
    "recurrent_gemma": _STATE,
    "roberta": _BOTH_WAYS,
    "rwkv": _STATE,
    "smollm3": "layers without positions",
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
    missing = [lacks] if lacks else [f"{means} ({key})" for means, key in found.items()][:MOST]
    why = f"shardbench lacks {', '.join(missing)}" if missing else "shardbench does not know its layers"
    return config.refused(
        f"is of model_type={short(config.model_type)}, which is not supported: {why}",
        f"use one of the {len(known)} families that shardbench model reads, such as {', '.join(known[:MOST])}",
    )
