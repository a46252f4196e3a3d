"""A ``config.json`` that vLLM can load with random weights, for models of Llama's architecture."""

from typing import Any

from engines.core.errors import Unsupported
from engines.core.model import Model


def llama_config(model: Model, dtype: str) -> dict[str, Any]:
    """The content of a checkpoint's ``config.json``.

    Raises:
        Unsupported: the model does not have Llama's architecture.
    """
    features = {
        "block=serial": model.block == "serial",
        "activation=swiglu": model.ffn.gated,
        "position=rotary": model.position == "rotary",
        "rotary_dim=null": model.rotated_dim == model.head_dim and not model.rotary_interleaved,
        "rotary_factor=1": model.rotary_factor == 1,
        "norm=rmsnorm": model.norm == "rmsnorm",
        "no biases": not (model.attn_bias or model.ffn_bias or model.norm_bias or model.lm_head_bias),
    }
    missing = [name for name, has in features.items() if not has]
    if missing:
        raise Unsupported(
            f"model={model.name}: engine=vllm generates random weights only for Llama's architecture ({missing[0]}); "
            "use engine.model_path=FOLDER with a checkpoint"
        )
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
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
        "hidden_act": "silu",
        "tie_word_embeddings": model.tied_embedding,
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": dtype,
    }
