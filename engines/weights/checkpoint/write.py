"""Writing a checkpoint in Hugging Face's layout: a model that Llama's config describes, and its weights."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engines.core.errors import Unsupported
from engines.core.model import Model
from engines.weights.checkpoint.describe import described_by
from engines.weights.checkpoint.families.llama import locations
from engines.weights.random import Floats, tensors


def write_checkpoint(folder: Path, model: Model, weights: Mapping[str, Floats]) -> None:
    """Write ``config.json`` and ``model.safetensors`` with the canonical tensors ``weights`` into ``folder``.

    Raises:
        Unsupported: Llama's config cannot say what the model is, or safetensors is not installed.
    """
    try:
        from safetensors.numpy import save_file
    except ImportError:
        raise Unsupported("writing a checkpoint needs safetensors: pip install 'shardbench[checkpoints]'") from None
    config = llama_config(model)
    stored = {}
    for name in tensors(model):
        location = locations(model)[name]
        matrix = np.asarray(weights[name], np.float32).reshape(location.rows, -1) - np.float32(location.added)
        turned = matrix.T if location.transposed else matrix
        stored[location.name] = np.ascontiguousarray(turned.reshape(location.shape))
    folder.mkdir(parents=True, exist_ok=True)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def llama_config(model: Model) -> dict[str, Any]:
    """The content of ``config.json``.

    Raises:
        Unsupported: it describes another model.
    """
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": model.d_model,
        "intermediate_size": model.d_ff,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.num_kv_heads,
        "head_dim": model.head_dim,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.max_positions,
        "rms_norm_eps": model.norm_epsilon,
        "rope_theta": model.rotary_base,
        "tie_word_embeddings": model.tied_embedding,
        "torch_dtype": "float32",
    }
    told = described_by(config)
    said = {key: getattr(model, key) for key in ("name", "source", "published_params", "mfu_params")}
    if replace(told, **said) != model:
        raise Unsupported(f"model={model.name}: only models with Llama's layer can be written as a checkpoint")
    return config
