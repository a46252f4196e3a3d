"""A model's size is what its files hold, where they are there."""

import json

import numpy as np
import pytest
from checkpoint_cases import saved
from safetensors.numpy import load_file, save_file

from engines.core.errors import InvalidRequest
from engines.weights.checkpoint.describe import describe, model_of

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path):
    saved("llama", tmp_path / "small")
    return tmp_path / "small"


def with_index(folder, metadata):
    (folder / "model.safetensors").unlink(missing_ok=True)
    content = {"metadata": metadata, "weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (folder / INDEX).write_text(json.dumps(content))


def configured(folder, **changes):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **changes}))


def test_by_the_headers_of_the_files(folder):
    held = load_file(folder / "model.safetensors")
    found = describe(folder).model
    assert found.published_params == sum(each.size for each in held.values()) == found.params
    assert found.source == "config.json of small; parameters by the headers of its safetensors"
    # Constants of old checkpoints are no parameters.
    held["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    save_file(held, folder / "model.safetensors")
    assert describe(folder).model == found


def test_by_headers_of_several_files(folder):
    held = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for number, name in enumerate(held):
        save_file({name: held[name]}, folder / f"{number}.safetensors")
    files = {name: f"{number}.safetensors" for number, name in enumerate(held)}
    (folder / INDEX).write_text(json.dumps({"weight_map": files}))
    assert describe(folder).model.published_params == model_of(folder).params


def test_a_tied_table_that_lies_there_twice_counts_once(tmp_path):
    saved("falcon-7b", tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    held["lm_head.weight"] = held["transformer.word_embeddings.weight"].copy()
    save_file(held, tmp_path / "model.safetensors")
    params = model_of(tmp_path).params
    assert describe(tmp_path).model.published_params == params
    # And by the index alone, which lists both.
    (tmp_path / "model.safetensors").unlink()
    size = 4 * sum(each.size for each in held.values())
    content = {"metadata": {"total_size": size}, "weight_map": dict.fromkeys(held, "a.safetensors")}
    (tmp_path / INDEX).write_text(json.dumps(content))
    assert size > 4 * params
    assert describe(tmp_path).model.published_params == params


def test_an_index_of_constants_states_nothing(folder):
    names = dict.fromkeys(["a", "model.layers.0.self_attn.rotary_emb.inv_freq"], "a.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 3}, "weight_map": names}))
    assert "counted from it" in describe(folder).model.source


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("torch.bfloat16", 2), ("float16", 2)])
def test_by_the_index_alone(folder, dtype, size):
    configured(folder, dtype=None, torch_dtype=dtype)
    params = model_of(folder).params
    with_index(folder, {"total_size": size * params + 20})
    found = describe(folder).model
    assert found.published_params == params + 20 // size
    assert "parameters by total_size of model.safetensors.index.json in" in found.source
    with_index(folder, {"total_size": 1, "total_parameters": params})
    assert describe(folder).model.published_params == params


@pytest.mark.parametrize("metadata", [None, {}, {"total_size": "1"}, {"total_size": 0}])
def test_counted_where_nothing_states_it(folder, metadata):
    with_index(folder, metadata)
    found = describe(folder).model
    assert found.published_params == found.params
    assert found.source == "config.json of small; parameters counted from it"


def test_files_of_another_model_are_refused(folder):
    configured(folder, intermediate_size=96)
    says = r"config.json describes [\d,]+ parameters, but the headers of its safetensors say [\d,]+; download"
    with pytest.raises(InvalidRequest, match=says):
        describe(folder)
    assert describe(folder / "config.json").model.d_ff == 96  # the config alone
    with_index(folder, {"total_size": 4_000_000_000})
    with pytest.raises(
        InvalidRequest, match=r"but total_size of model.safetensors.index.json in float32 say 1,000,000,000"
    ):
        describe(folder)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 20, b"\x02\x00\x00\x00\x00\x00\x00\x00[]", b"\x05" + bytes(7) + b"{"]
)
def test_no_safetensors_file(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"model.safetensors is no safetensors file; download that file again"):
        describe(folder)
