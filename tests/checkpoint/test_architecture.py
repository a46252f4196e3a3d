"""A config of another task, of a draft model, or with code of its own is not the model of its family."""

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given
from released_configs import READ, RELEASED

from engines.core.errors import InvalidRequest
from engines.weights.checkpoint.architecture import check_architecture
from engines.weights.checkpoint.config import Config
from engines.weights.checkpoint.describe import model_of
from engines.weights.checkpoint.families.registry import FAMILIES


def refusal(folder, name="llama-3-8b", **changes):
    """The sentence for a released config with some keys changed; ``None`` deletes one."""
    content = {**RELEASED[name]["config"], **changes}
    (folder / "config.json").write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    with pytest.raises(InvalidRequest) as caught:
        model_of(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("architecture", "says"),
    [
        ("LlamaForSequenceClassification", "a classifier or reward model: its head gives scores and no tokens"),
        ("LlamaForRewardModel", "a reward model"),
        ("LlamaForTokenClassification", "a classifier of tokens"),
        ("LlamaForQuestionAnswering", "a model that marks answers in a text"),
        ("LlamaForCausalLMEagle3", "a draft model for speculative decoding"),
        ("EagleLlamaForCausalLM", "a draft model for speculative decoding"),
        ("MedusaLlamaModel", "heads for speculative decoding"),
        ("LlamaMTPModel", "layers that predict further tokens"),
        ("LlamaForConditionalGeneration", "a model of several inputs, or an encoder with a decoder"),
        ("LlamaModel", "a model without an output of tokens, such as one that embeds texts"),
        ("DeciLMForCausalLM", "which is not the causal language model of model_type=llama"),
    ],
)
def test_another_architecture_is_refused_by_what_it_is(architecture, says, tmp_path):
    sentence = refusal(tmp_path, architectures=[architecture])
    assert f"config.json has architectures={architecture}, {says}" in sentence
    assert sentence.endswith("; give a checkpoint of LlamaForCausalLM or LLaMAForCausalLM")


@given(architecture=st.text(), family=st.sampled_from(sorted(FAMILIES)))
def test_only_the_architectures_of_a_family_pass(architecture, family, tmp_path_factory):
    allowed = FAMILIES[family].architectures
    config = Config(tmp_path_factory.getbasetemp(), {"model_type": family, "architectures": [architecture]})
    if architecture not in allowed:
        with pytest.raises(InvalidRequest):
            check_architecture(config, allowed, ())


@pytest.mark.parametrize("name", READ)
def test_a_config_must_name_its_architecture(name, tmp_path):
    for missing in (None, []):
        sentence = refusal(tmp_path, name, architectures=missing)
        assert "has no architectures, so that it may be of another task; add" in sentence
    for odd in ("LlamaForCausalLM", [3], ["LlamaForCausalLM", "LlamaModel"], {}):
        assert "must name one architecture" in refusal(tmp_path, name, architectures=odd)


@pytest.mark.parametrize(
    "code",
    [
        {"AutoModelForCausalLM": "modeling_mine.LlamaForCausalLM"},
        {"AutoModelForCausalLM": "someone/repository--modeling_mine.LlamaForCausalLM"},
        {"AutoConfig": "configuration_mine.MyConfig"},
        {"AutoModel": [None, "modeling_mine.Model"]},
    ],
)
def test_code_of_its_own_is_refused(code, tmp_path):
    assert "the checkpoint runs code of its own, which may be any model" in refusal(tmp_path, auto_map=code)
    assert "runs code of its own" in refusal(tmp_path, "falcon-7b", auto_map=code)


def test_code_that_became_a_part_of_transformers_is_none_of_its_own(tmp_path):
    for name, module in (("falcon-40b", "falcon"), ("phi-2", "phi"), ("phi-4", "phi3")):
        code = {"AutoConfig": f"configuration_{module}.C", "AutoModelForCausalLM": f"repo/a--modeling_{module}.M"}
        content = {**RELEASED[name]["config"], "auto_map": code}
        (tmp_path / "config.json").write_text(json.dumps(content))
        assert model_of(tmp_path).params > 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"draft_vocab_size": 32000}, "draft_vocab_size=32000, which is not supported: a draft model"),
        ({"num_nextn_predict_layers": 1}, "layers that predict further tokens"),
        ({"text_config": {"hidden_size": 3}}, "a model in a wrapper of several"),
        ({"vision_config": {"hidden_size": 3}}, "a model in a wrapper of several"),
        ({"is_encoder_decoder": True}, "an encoder beside the decoder"),
        ({"quantization_config": {"bits": 4}}, "quantized weights"),
        ({"torch_dtype": "float8_e4m3fn"}, "torch_dtype=float8_e4m3fn, which must be one of float32"),
        ({"layer_types": ["full_attention"] * 31 + ["sliding_attention"]}, "must be full_attention for every layer"),
        ({"layer_types": ["full_attention"] * 31 + ["linear_attention"]}, "full_attention or sliding_attention"),
        ({"layer_types": ["full_attention"] * 31}, "must name as many layers as num_hidden_layers=32"),
        ({"num_key_value_heads": [8] * 32}, "must be an integer"),
        ({"head_dim": [128] * 32}, "must be an integer"),
        ({"num_key_value_heads": 5}, "describes a model of num_kv_heads=5, which must divide num_heads=32"),
        ({"num_attention_heads": 31, "num_key_value_heads": None}, "must divide hidden_size=4096"),
        ({"rope_scaling": {"type": "yarn"}}, "has no factor"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "beta_slow": 64}}, "must have beta_slow ≤ beta_fast"),
        ({"rope_scaling": {"type": "dynamic", "alpha": 4.0, "factor": 1.0}}, "has alpha=4.0, which is not supported"),
        ({"rope_scaling": {"type": "longrope", "factor": 4.0}}, "has no original_max_position_embeddings"),
        ({"rope_scaling": {"type": "mrope", "factor": 4.0}}, "a scaling of type mrope"),
        ({"rope_scaling": {"type": "linear", "rope_type": "llama3"}}, "a scaling of type linear and llama3"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "mscale": 0.7}}, "has mscale=0.7, which is not supported"),
        ({"rope_parameters": {"full_attention": {}, "rope_theta": 1.0}}, "rope_theta=500000.0, which is 1.0 in"),
        ({"rope_parameters": {"rope_theta": 500000.0, "full_attention": {"a": 1}}}, "has full_attention={'a': 1}"),
        ({"rope_parameters": {}, "rope_scaling": {}}, "has both rope_scaling and rope_parameters"),
        ({"partial_rotary_factor": 0.5}, "rotary positions on a part of each head"),
        ({"rms_norm_eps": -1}, "must be a number > 0"),
        ({"vocab_size": 10**400}, "must be at most"),
    ],
)
def test_what_makes_another_model_is_refused(changes, says, tmp_path):
    assert says in refusal(tmp_path, **changes)


def test_old_layouts_are_named(tmp_path):
    sentence = refusal(tmp_path, "falcon-7b", model_type="RefinedWebModel")
    assert "is of model_type=RefinedWebModel, the layout of falcon before it was part of transformers" in sentence


def test_an_unknown_family_is_refused_by_its_features(tmp_path):
    sentence = refusal(tmp_path, "mixtral-8x7b", model_type="newtral")
    assert "is of model_type=newtral, which is not supported: shardbench lacks a mixture of experts (num_" in sentence
    assert "shardbench does not know its layers" in refusal(tmp_path, model_type="newtral")
    assert "model_type" in refusal(tmp_path, model_type=7)


@pytest.mark.parametrize("name", ["hf_quant_config.json", "quantize_config.json"])
def test_a_file_beside_it_may_say_that_weights_are_quantized(name, tmp_path):
    (tmp_path / name).write_text("{}")
    assert f"has {name}: its weights are quantized" in refusal(tmp_path)


def described(folder, name, **changes):
    (folder / "config.json").write_text(json.dumps({**RELEASED[name]["config"], **changes}))
    return model_of(folder)


def test_a_window_that_no_text_outgrows_is_none(tmp_path):
    name = "mistral-7b-v0.3"
    assert described(tmp_path, name, sliding_window=32768).attention_window is None
    assert described(tmp_path, name, sliding_window=32767).attention_window == 32767
    content = {key: value for key, value in RELEASED[name]["config"].items() if key != "sliding_window"}
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert model_of(tmp_path).attention_window == 4096  # what transformers takes


def test_layers_with_a_window_must_repeat(tmp_path):
    sliding, full = "sliding_attention", "full_attention"
    found = described(tmp_path, "gemma-3-1b")
    assert (found.attention_window, found.global_every, found.rotary_window_base) == (512, 6, 10000.0)
    assert [kind.window is None for kind in found.layer_kinds].count(True) == 4
    kinds = ([sliding] * 2 + [full]) * 9
    assert described(tmp_path, "gemma-3-1b", layer_types=kinds[:26]).global_every == 3
    odd = [full, *[sliding] * 25]
    sentence = refusal(tmp_path, "gemma-3-1b", layer_types=odd)
    assert "layers 1 see beyond the window, and not every n-th" in sentence
    used = {"use_sliding_window": True, "sliding_window": 4096}
    assert described(tmp_path, "qwen2.5-7b", **used).attention_window is None  # max_window_layers are all
    assert described(tmp_path, "qwen2.5-7b", **used, max_window_layers=0).attention_window == 4096
    assert "max_window_layers=14, which is not supported" in refusal(
        tmp_path, "qwen2.5-7b", **used, max_window_layers=14
    )


def test_a_dense_deepseek_has_no_experts(tmp_path):
    dense = described(tmp_path, "deepseek-v2-lite", first_k_dense_replace=27)
    assert (dense.num_experts, dense.dense_layers, dense.kv_latent_dim) == (None, None, 512)
    with_all = described(tmp_path, "deepseek-v2-lite", first_k_dense_replace=0)
    assert (with_all.num_experts, with_all.dense_layers) == (64, None)


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("qwen3-30b-a3b", {"mlp_only_layers": [3]}, "dense layers other than the first"),
        ("qwen3-30b-a3b", {"decoder_sparse_step": 2}, "experts in every second layer"),
        ("deepseek-v2-lite", {"topk_method": "noaux_tc"}, "topk_method=noaux_tc, which must be one of greedy"),
        ("deepseek-v2-lite", {"scoring_func": "sigmoid"}, "another score of experts"),
        ("deepseek-v2-lite", {"attention_bias": True}, "biases of latent attention"),
        ("deepseek-v2-lite", {"rms_norm_eps": 1e-5}, "norms of latents have 1e-06"),
        ("deepseek-v2-lite", {"num_key_value_heads": 4}, "fewer heads of keys than of queries"),
        ("command-r-35b", {"use_qk_norm": True}, "a scale for each head"),
        ("opt-6.7b", {"do_layer_norm_before": False}, "norms on the residual stream"),
        ("bloom-560m", {"apply_residual_connection_post_layernorm": True}, "a residual stream that is normed"),
        ("gemma-2b", {"use_bidirectional_attention": True}, "attention in both directions"),
        ("mixtral-8x7b", {"num_experts": 7}, "num_local_experts says 8"),
    ],
)
def test_what_today_s_families_cannot_mean_here_is_refused(name, changes, says, tmp_path):
    assert says in refusal(tmp_path, name, **changes)


def test_a_key_that_stands_there_twice_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"hidden_size": 4096, "model_type": "llama", "hidden_size": 8192}')
    with pytest.raises(InvalidRequest, match=r"config.json cannot be read \(it has the key hidden_size twice\)"):
        model_of(tmp_path)
