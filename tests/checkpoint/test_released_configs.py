"""The models of conf/model are those of the configs that their authors released."""

import json

import pytest

from bench.sweep.catalog import load_model
from engines.core.errors import InvalidRequest
from engines.weights.checkpoint.families import check_matches, model_of

CONFIGS = {
    "llama-3-8b": {
        "model_type": "llama",
        "attention_bias": False,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 8192,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "vocab_size": 128256,
    },
    "falcon-7b": {
        "model_type": "falcon",
        "alibi": False,
        "bias": False,
        "hidden_size": 4544,
        "layer_norm_epsilon": 1e-05,
        "multi_query": True,
        "new_decoder_architecture": False,
        "num_attention_heads": 71,
        "num_hidden_layers": 32,
        "parallel_attn": True,
        "vocab_size": 65024,
    },
    "falcon-40b": {
        "model_type": "falcon",
        "alibi": False,
        "bias": False,
        "hidden_size": 8192,
        "layer_norm_epsilon": 1e-05,
        "new_decoder_architecture": True,
        "num_attention_heads": 128,
        "num_hidden_layers": 60,
        "num_kv_heads": 8,
        "parallel_attn": True,
        "vocab_size": 65024,
    },
    "gpt-j-6b": {
        "model_type": "gptj",
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-05,
        "n_embd": 4096,
        "n_head": 16,
        "n_inner": None,
        "n_layer": 28,
        "n_positions": 2048,
        "rotary": True,
        "rotary_dim": 64,
        "tie_word_embeddings": False,
        "vocab_size": 50400,
    },
}
NEOX_20B = {
    "model_type": "gpt_neox",
    "hidden_act": "gelu_fast",
    "hidden_size": 6144,
    "intermediate_size": 24576,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "num_attention_heads": 64,
    "num_hidden_layers": 44,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "use_parallel_residual": True,
    "vocab_size": 50432,
}


def written(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_our_model_is_the_released_one(name, tmp_path):
    check_matches(load_model(name), written(tmp_path, CONFIGS[name]))


def test_what_a_config_leaves_out_is_what_transformers_takes(tmp_path):
    llama = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4}
    small = model_of(written(tmp_path, {"model_type": "llama", "vocab_size": 10, **llama}))
    assert (small.num_kv_heads, small.head_dim, small.rotary_base, small.norm_epsilon) == (4, 16, 10000.0, 1e-6)
    assert (small.tied_embedding, small.attn_bias, small.ffn_bias) == (False, False, False)
    falcon = model_of(written(tmp_path, {**CONFIGS["falcon-40b"], "num_ln_in_parallel_attn": 1, "num_kv_heads": None}))
    assert (falcon.norms_per_layer, falcon.num_kv_heads, falcon.block) == (1, 128, "parallel")
    neox = model_of(written(tmp_path, {**NEOX_20B, "rotary_pct": 1.0, "use_parallel_residual": False}))
    assert (neox.rotary_dim, neox.block, neox.attn_bias) == (96, "serial", True)
    assert model_of(written(tmp_path, {**CONFIGS["gpt-j-6b"], "n_inner": 100})).d_ff == 100


def test_a_size_that_its_authors_state(tmp_path):
    # GPT-NeoX-20B (Black et al. 2022).
    model = model_of(written(tmp_path, NEOX_20B))
    assert model.rotary_dim == 24
    assert model.activation == "gelu_tanh"
    assert model.params == 20_554_567_680


def test_positions_by_slopes_are_refused(tmp_path):
    with pytest.raises(InvalidRequest, match=r"config.json has alibi=True, which is not supported; give another"):
        model_of(written(tmp_path, {**CONFIGS["falcon-7b"], "alibi": True}))


def test_a_stretched_model_is_another_model(tmp_path):
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    folder = written(tmp_path, {**CONFIGS["llama-3-8b"], "rope_scaling": scaling})
    with pytest.raises(InvalidRequest, match=r"model.rotary_factor=1.0: is 8.0 in config.json of"):
        check_matches(load_model("llama-3-8b"), folder)
