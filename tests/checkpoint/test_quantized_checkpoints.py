"""Weights stored as mxfp4 or as float8 in blocks are read as the numbers that they stand for."""

import json

import ml_dtypes
import numpy as np
import pytest
from checkpoint_cases import rewritten, saved
from safetensors.numpy import save_file

from engines.core.errors import InvalidRequest
from engines.weights.checkpoint.describe import describe, model_of
from engines.weights.checkpoint.files import Files
from engines.weights.checkpoint.source import Checkpoint, open_checked
from engines.weights.random import tensors, values

FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}


def configured(folder, **changes):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **changes}))


@pytest.fixture(scope="module")
def gpt_oss(tmp_path_factory):
    """A gpt-oss whose experts are mxfp4, and what transformers makes of each packed tensor."""
    import torch
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    folder, meant = tmp_path_factory.mktemp("gpt-oss"), {}
    saved("gpt-oss", folder)
    random = np.random.default_rng(0)

    def pack(held):
        for name in [each for each in held if each.endswith(("gate_up_proj", "down_proj"))]:
            experts, inward, rows = held.pop(name).shape
            blocks = random.integers(0, 256, (experts, rows, inward // 32, 16), np.uint8)
            scales = random.integers(120, 128, (experts, rows, inward // 32), np.uint8)
            held |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
            one, two = torch.from_numpy(blocks), torch.from_numpy(scales)
            meant[name] = convert_moe_packed_tensors(one, two, dtype=torch.float32).numpy()

    rewritten(folder, pack)
    configured(folder, quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": []})
    return folder, meant


def test_mxfp4_is_what_transformers_makes_of_it(gpt_oss):
    folder, meant = gpt_oss
    opened = open_checked(folder, model_of(folder))
    specs = tensors(model_of(folder))
    for layer in (0, 1):
        together = meant[f"model.layers.{layer}.mlp.experts.gate_up_proj"]
        for at, name in enumerate(("gate", "up")):
            assert np.array_equal(values(specs[f"layers.{layer}.experts.{name}"], opened), together[:, :, at::2])
        outward = meant[f"model.layers.{layer}.mlp.experts.down_proj"]
        spec = specs[f"layers.{layer}.experts.wo"]
        assert np.array_equal(values(spec, opened), outward)
        part = (slice(1, 3), slice(5, 41), slice(3, 30))  # begins and ends within groups of 32
        assert np.array_equal(values(spec, opened, part), outward[part])


def test_the_size_counts_numbers_and_not_bytes(gpt_oss):
    found = describe(gpt_oss[0]).model
    assert found.published_params == found.params
    assert found.source.endswith("parameters by the headers of its safetensors")


def test_float8_is_scaled_block_by_block(tmp_path):
    random = np.random.default_rng(1)
    stored = random.normal(size=(200, 300)).astype(ml_dtypes.float8_e4m3fn)
    scales = random.uniform(0.5, 2, (2, 3)).astype(np.float32)
    save_file({"w": stored, "w_scale_inv": scales}, tmp_path / "model.safetensors")
    wanted = stored.astype(np.float32) * np.kron(scales, np.ones((128, 128), np.float32))[:200, :300]
    files = Files(tmp_path)
    assert list(files.entries) == ["w"]
    assert np.array_equal(files.read("w", slice(0, 200), slice(0, 300)), wanted)
    assert np.array_equal(files.read("w", slice(100, 140), slice(130, 260)), wanted[100:140, 130:260])


def test_a_deepseek_in_float8_is_read(tmp_path):
    model = saved("deepseek-v3", tmp_path)
    name = "model.layers.1.mlp.experts.5.up_proj.weight"
    meant = {}

    def pack(held):
        for each in [key for key in held if key.endswith("_proj.weight")]:
            low = (held[each] / 2).astype(ml_dtypes.float8_e4m3fn)
            held |= {each: low, f"{each}_scale_inv": np.full((1, 1), 2, np.float32)}
            meant[each] = low.astype(np.float32) * 2
        held["model.layers.3.eh_proj.weight"] = np.ones((3, 3), np.float32)  # predicts further tokens

    rewritten(tmp_path, pack)
    configured(tmp_path, quantization_config=FP8)
    opened = open_checked(tmp_path, model_of(tmp_path))
    assert np.array_equal(values(tensors(model_of(tmp_path))["layers.1.experts.up"], opened)[5], meant[name].T)
    size = sum(each.numel() for each in model.parameters()) + 2 * 8  # and the router's corrections, a buffer
    assert describe(tmp_path).model.published_params == size
    configured(tmp_path, num_hidden_layers=4)
    with pytest.raises(InvalidRequest, match="describes"):
        describe(tmp_path)


@pytest.mark.parametrize(
    ("case", "given", "says"),
    [
        ("deepseek-v3", {**FP8, "weight_block_size": [64, 64]}, r"its weight_block_size must be \[128, 128\]"),
        ("deepseek-v3", {**FP8, "fmt": "e5m2"}, "its fmt must be e4m3"),
        ("deepseek-v3", {"quant_method": "awq"}, "quantized weights other than fp8"),
        ("gpt-oss", FP8, "quantized weights other than mxfp4"),
        ("qwen3", FP8, "quantized weights"),
    ],
)
def test_other_quantized_weights_are_refused(case, given, says, tmp_path):
    saved(case, tmp_path)
    configured(tmp_path, quantization_config=given)
    with pytest.raises(InvalidRequest, match=says):
        Checkpoint(tmp_path, model_of(tmp_path))
