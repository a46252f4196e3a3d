"""Points and architectures that the tests of the torch engine share."""

import dataclasses

import numpy as np
from builders.points import point as build_point

from bench.sweep.catalog import load_model
from engines.torch.result import Outputs


def changed(**changes):
    return dataclasses.replace(load_model("tiny"), **{"num_layers": 3, **changes})


ARCHITECTURES = {
    "palm": changed(),
    "gpt": dataclasses.replace(load_model("tiny-gpt"), num_layers=3),
    "llama": changed(
        block="serial", norms_per_layer=2, norm="rmsnorm", num_kv_heads=4, tied_embedding=False, rotary_base=500000.0
    ),
    "gpt-j": changed(
        num_kv_heads=8,
        activation="gelu_tanh",
        rotary_dim=16,
        rotary_interleaved=True,
        ffn_bias=True,
        norm_bias=True,
        tied_embedding=False,
        lm_head_bias=True,
        vocab_size=1021,
    ),
    "falcon": changed(norms_per_layer=2, num_kv_heads=2, activation="gelu", attn_bias=True, norm_bias=True),
}


def point(model="palm", tensor=1, pipeline=1, **changes):
    values = {
        "model": ARCHITECTURES[model],
        "hw": "cpu",
        "engine": "torch",
        "phase": "generate",
        "num_chips": tensor * pipeline,
        "tensor_parallel": tensor,
        "pipeline_parallel": pipeline,
        "batch_size": 3,
        "input_len": 7,
        "output_len": 6,
        "weight_dtype": "float32",
    }
    return build_point(**{**values, **changes})


def run(group):
    """Prefill and decode once; the outputs of all ranks joined."""
    group.call("prefill")
    group.call("decode")
    return Outputs.joined(group.call("outputs"))


def fed(asked, outputs, seed):
    """The tokens that the program read, and the positions whose logits it kept."""
    from engines.weights.random import prompt

    first = prompt(asked.model, asked.batch_size, asked.input_len, seed)
    tokens = np.concatenate([first, outputs.first[:, None], outputs.generated.T[:, :-1]], axis=1).astype(np.int32)
    return tokens, [asked.input_len - 1, *range(tokens.shape[1] - len(outputs.kept), tokens.shape[1])]


def logits(outputs):
    """[positions, batch, vocab]."""
    return np.concatenate([outputs.first_scores[None], outputs.kept])
