"""The configs that authors released: read with the published number of parameters, or refused by what is missing.

Those of Llama 2, 3.1 and 4, Qwen 2.5 and 3, Mixtral, DeepSeek-V3, gpt-oss, Kimi, MiniMax, MiMo and Nemotron are copies,
as the package aiconfigurator has them. The others were written down from what is published of the models, without the
files at hand: their sizes are held by the published counts and, where transformers has the family, by its own count; a
key that changes nothing may differ from the file's.
"""

import json
from pathlib import Path

import pytest
from released_configs import READ, REFUSED, RELEASED, counted_besides, published, transformers_params

from bench.sweep.catalog import load_model
from engines.core.errors import InvalidRequest
from engines.weights.checkpoint.describe import check_matches, describe, model_of
from engines.weights.checkpoint.families.registry import FAMILIES
from engines.weights.checkpoint.unreadable import LACKS, OLD_NAMES


def written(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def changed(name, **changes):
    return {**RELEASED[name]["config"], **changes}


def test_forty_families_are_there():
    assert len({entry["family"] for entry in RELEASED.values()}) >= 40
    assert {RELEASED[name]["config"]["model_type"] for name in READ} >= FAMILIES.keys() - {"starcoder2"}
    assert all(entry["source"].startswith("config.json of ") for entry in RELEASED.values())


def test_the_documentation_names_every_family():
    page = (Path(__file__).parents[2] / "docs/how-to/checkpoints.md").read_text()
    rows = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert rows - {"model_type"} == set(FAMILIES)
    assert not FAMILIES.keys() & (LACKS.keys() | OLD_NAMES.keys())


@pytest.mark.parametrize("name", READ)
def test_a_released_model_has_its_published_size(name, tmp_path):
    entry = RELEASED[name]
    found = describe(written(tmp_path, entry["config"]))
    assert entry["params_source"]
    assert found.model.params == published(entry)
    assert found.model.published_params == found.model.params
    assert found.unknown == ()


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_what_is_missing(name, tmp_path):
    with pytest.raises(InvalidRequest) as caught:
        describe(written(tmp_path, RELEASED[name]["config"]))
    assert RELEASED[name]["lacks"] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.thorough(every=3)
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, entry in RELEASED.items() if not entry.get("cut")])
def test_transformers_counts_the_same(name, tmp_path):
    entry = RELEASED[name]
    counted = transformers_params(entry["config"])
    if counted is None:
        assert name in REFUSED or entry["family"] == "kimi_k2"  # DeepSeek-V3 under another name
        pytest.skip("transformers has no class for it")
    if "params" in entry:
        assert counted == published(entry)
    if name in READ:
        model = model_of(written(tmp_path, entry["config"]))
        assert model.params + counted_besides(entry["family"], model) == counted


@pytest.mark.parametrize(
    ("ours", "released"),
    [
        ("llama-3-8b", "llama-3-8b"),
        ("falcon-7b", "falcon-7b"),
        ("falcon-40b", "falcon-40b"),
        ("gpt-j-6b", "gpt-j-6b"),
    ],
)
def test_our_model_is_the_released_one(ours, released, tmp_path):
    check_matches(load_model(ours), written(tmp_path, RELEASED[released]["config"]))


def test_what_a_config_leaves_out_is_what_transformers_takes(tmp_path):
    llama = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4}
    kind = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    small = model_of(written(tmp_path, {**kind, "vocab_size": 10, **llama}))
    assert (small.num_kv_heads, small.head_dim, small.rotary_base, small.norm_epsilon) == (4, 16, 10000.0, 1e-6)
    assert (small.tied_embedding, small.attn_bias, small.ffn_bias) == (False, False, False)
    falcon = model_of(written(tmp_path, changed("falcon-40b", num_ln_in_parallel_attn=1, num_kv_heads=None)))
    assert (falcon.norms_per_layer, falcon.num_kv_heads, falcon.block) == (1, 128, "parallel")
    neox = model_of(written(tmp_path, changed("gpt-neox-20b", rotary_pct=1.0, use_parallel_residual=False)))
    assert (neox.rotary_dim, neox.block, neox.attn_bias) == (96, "serial", True)
    assert model_of(written(tmp_path, changed("gpt-j-6b", n_inner=100))).d_ff == 100


def test_details_of_released_models(tmp_path):
    neox = model_of(written(tmp_path, RELEASED["gpt-neox-20b"]["config"]))
    assert (neox.rotary_dim, neox.activation, neox.params) == (24, "gelu_tanh", 20_554_567_680)
    qwen = model_of(written(tmp_path, RELEASED["qwen2.5-7b"]["config"]))
    assert (qwen.attn_bias, qwen.attn_output_bias, qwen.has_output_bias) == (True, False, False)
    nemo = model_of(written(tmp_path, RELEASED["mistral-nemo-12b"]["config"]))
    assert (nemo.head_dim, nemo.num_heads * nemo.head_dim, nemo.d_model) == (128, 4096, 5120)
    phi = model_of(written(tmp_path, RELEASED["phi-2"]["config"]))
    assert (phi.rotary_dim, phi.block, phi.lm_head_bias) == (32, "parallel", True)


def test_a_stretched_model_is_another_model(tmp_path):
    folder = written(tmp_path, RELEASED["llama-3.1-8b"]["config"])
    with pytest.raises(InvalidRequest, match=r"model.rotary_factor=1.0: is 8.0 in config.json of"):
        check_matches(load_model("llama-3-8b"), folder)
    content = {**RELEASED["llama-3-8b"]["config"], "max_position_embeddings": 131072}
    with pytest.raises(InvalidRequest, match=r"model.max_positions=8192: is 131072 in config.json of"):
        check_matches(load_model("llama-3-8b"), written(tmp_path, content))
