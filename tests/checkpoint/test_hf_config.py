"""A config that is written for another program describes the same model: here, and in transformers."""

import dataclasses

import pytest
from released_configs import READ, RELEASED, counted_besides, transformers_params

from bench.sweep.catalog import load_model, names
from engines.core.errors import Unsupported
from engines.external.hf_config import differences, hf_config
from engines.external.hf_families import FAMILIES
from engines.weights.checkpoint.describe import described_by

RELEASED_OF = {RELEASED[name]["config"]["model_type"]: name for name in READ}
WRITTEN = [family for family, _ in FAMILIES]
NO_IDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def released(family):
    return described_by(RELEASED[RELEASED_OF[family]]["config"])


@pytest.mark.parametrize("family", WRITTEN)
def test_a_released_model_of_each_family_is_written_and_read_back(family):
    model = released(family)
    content = hf_config(model, "bfloat16", "vllm")
    assert content["torch_dtype"] == "bfloat16"
    assert differences(described_by(content), model) == []


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3", "mixtral", "deepseek_v3", "gemma3_text", "gpt_oss", "qwen3_moe", "bloom"])
def test_transformers_counts_as_many_parameters(family):
    model = dataclasses.replace(released(family), num_layers=8)
    content = hf_config(model, "bfloat16", "vllm")
    assert content["model_type"] == family
    counted = transformers_params({**content, **NO_IDS})
    assert counted == model.params + counted_besides(family, model)


@pytest.mark.parametrize("name", names("model"))
def test_a_model_of_ours_is_written_whole_or_refused(name):
    model = load_model(name)
    try:
        content = hf_config(model, "bfloat16", "vllm")
    except Unsupported as error:
        said = str(error)
        assert said.startswith(f"model={name}: engine=vllm generates random weights for families")
        assert "use engine.model_path=FOLDER" in said
        assert "\n" not in said
    else:
        assert differences(described_by(content), model) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_sinks": True},
        {"residual_scale": 0.5, "norm_bias": True},
        {"rotary_interleaved": True},
        {"attention_window": 7, "window_kind": "chunked"},
        {"num_experts": 4, "experts_per_token": 2, "router_scale": 3.0},
        {"position": "alibi"},
    ],
)
def test_what_no_family_has_is_never_left_out(changes):
    with pytest.raises(Unsupported, match="is none of"):
        hf_config(dataclasses.replace(load_model("llama-3-8b"), **changes), "bfloat16", "vllm")
