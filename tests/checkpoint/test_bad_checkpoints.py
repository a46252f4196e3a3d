"""What is wrong with a checkpoint is one sentence before a device holds anything; and what tells two apart."""

import json
import re
import shutil
import sys
from dataclasses import replace
from functools import partial

import jax
import ml_dtypes
import numpy as np
import pytest
from builders.points import point as build_point
from checkpoint_cases import rewritten, saved
from safetensors.numpy import load_file

from engines.core.errors import ShardbenchError, Unsupported
from engines.jax.engine import JaxEngine
from engines.weights.checkpoint import source
from engines.weights.checkpoint.describe import model_of
from engines.weights.checkpoint.identity import identity

pytestmark = pytest.mark.usefixtures("plainly_compiled", "small_peaks")

Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good") / "small"
    saved("llama", folder)
    return folder


@pytest.fixture
def folder(good, tmp_path):
    shutil.copytree(good, tmp_path / "small")
    return tmp_path / "small"


point = partial(
    build_point,
    hw="cpu",
    engine="jax",
    phase="generate",
    num_chips=8,
    batch_size=8,
    input_len=6,
    output_len=3,
    weight_dtype="float32",
)


def refused(folder, model):
    """The sentence with which the engine refuses, having put nothing on a device."""
    before = len(jax.live_arrays())
    with pytest.raises(ShardbenchError) as caught:
        JaxEngine(checkpoint=str(folder)).prepare(point(model))
    assert len(jax.live_arrays()) <= before  # those of a former test may be collected meanwhile
    assert "\n" not in str(caught.value)
    return str(caught.value)


def configured(folder, **changes):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **changes}))


def filled(name, value):
    def change(held):
        held[name].flat[-1] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda held: held.pop(Q), rf"has no tensor {Q} \[32, 32\]; download"),
        (lambda held: held.update({"model.layers.2.extra": np.ones(3)}), r"has a tensor model.layers.2.extra \[3\]"),
        (lambda held: held.update({Q: np.ones((32, 31), np.float32)}), rf"has {Q} of shape \[32, 31\].*\[32, 32\]"),
        (lambda held: held.update({Q: np.ones((32, 32), np.int8)}), rf"has {Q} in I8; give one stored as F32, F16"),
        (filled(Q, np.nan), f"has NaN or infinity in {Q}; use"),
        (filled("model.norm.weight", -np.inf), "has NaN or infinity in model.norm.weight"),
        (lambda held: held.update({Q: np.full((32, 32), np.inf, ml_dtypes.bfloat16)}), f"infinity in {Q}"),
        (lambda held: held.update({Q: np.full((32, 32), np.nan, np.float16)}), f"infinity in {Q}"),
    ],
)
def test_bad_tensors(folder, change, says):
    model = model_of(folder)
    rewritten(folder, change)
    sentence = refused(folder, model)
    assert sentence.startswith(f"engine.checkpoint={folder}: ")
    assert re.search(says, sentence)


def test_the_largest_numbers_are_numbers(folder):
    rewritten(folder, filled(Q, np.finfo(np.float32).max))
    source.open_checked(folder, model_of(folder))
    rewritten(folder, lambda held: held.update({Q: np.full((32, 32), 65504, np.float16)}))
    source.open_checked(folder, model_of(folder))


def test_constants_of_old_checkpoints_are_ignored(folder):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    rewritten(folder, lambda held: held.update({name: np.full(4, np.nan, np.float32)}))
    source.open_checked(folder, model_of(folder))


def test_a_tied_table_may_lie_there_twice(tmp_path):
    saved("falcon-7b", tmp_path)
    table = load_file(tmp_path / "model.safetensors")["transformer.word_embeddings.weight"]
    rewritten(tmp_path, lambda held: held.update({"lm_head.weight": table.copy()}))
    source.open_checked(tmp_path, model_of(tmp_path))
    rewritten(tmp_path, filled("lm_head.weight", 0.5))
    sentence = refused(tmp_path, model_of(tmp_path))
    assert "transformer.word_embeddings.weight and lm_head.weight differ; set" in sentence
    rewritten(tmp_path, lambda held: held.update({"lm_head.weight": table[:, 1:].copy()}))
    assert "has lm_head.weight of shape [61, 31]" in refused(tmp_path, model_of(tmp_path))


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_file(folder, kept):
    model, path = model_of(folder), folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert "model.safetensors cannot be read" in refused(folder, model)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", None, "has no config.json; give a folder"),
        ("config.json", "{", "config.json cannot be read"),
        ("config.json", "[]", "config.json must be a JSON object"),
        ("model.safetensors", None, "has no model.safetensors; give a folder of safetensors"),
        ("model.safetensors.index.json", "{}", "index.json has no weight_map"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "b.safetensors"}}', "has no b.safetensors"),
    ],
)
def test_bad_folders(folder, name, content, says):
    model = model_of(folder)
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_text(content)
    assert says in refused(folder, model)


def test_no_folder(good, tmp_path):
    assert "is not a folder; give" in refused(tmp_path / "none", model_of(good))
    assert "is not a folder; give" in refused(good / "config.json", model_of(good))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"model_type": "mamba"},
            "is of model_type=mamba, which is not supported: shardbench lacks layers that keep a state",
        ),
        ({"hidden_act": "relu"}, "hidden_act=relu, which must be one of silu"),
        ({"hidden_size": "wide"}, "hidden_size=wide, which must be an integer"),
        ({"num_attention_heads": 0}, "num_attention_heads=0, which must be an integer ≥ 1"),
        ({"num_hidden_layers": None}, "has no num_hidden_layers"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings=1, which must be true or false"),
        ({"quantization_config": {"bits": 4}}, "quantization_config={'bits': 4}, which is not supported"),
        (
            {"rope_parameters": {"rope_type": "ntk", "factor": 2.0}},
            "is a scaling of type ntk; default, linear, llama3, dynamic, yarn, longrope are supported",
        ),
        ({"rope_parameters": {"rope_type": "linear"}}, "has no factor"),
    ],
)
def test_bad_configs(folder, changes, says):
    model = model_of(folder)
    configured(folder, **changes)
    assert re.search(says, refused(folder, model))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"num_layers": 3},
            "model.num_layers=3: is 2 in config.json of .*; run the model that shardbench model checkpoint=/.* prints",
        ),
        ({"rotary_base": 10000.0}, "model.rotary_base=10000.0: is 500000.0 in"),
        ({"norm_epsilon": 1e-5}, "model.norm_epsilon=1e-05: is 1e-06 in"),
        ({"tied_embedding": True}, "model.tied_embedding=true: is false in"),
    ],
)
def test_another_model_than_was_asked_for(good, changes, says):
    assert re.search(says, refused(good, replace(model_of(good), **changes)))


def test_what_changes_no_number_may_differ(good):
    model = replace(model_of(good), name="mine", mfu_params=5.0, source="elsewhere", rotary_dim=4)
    assert source.open_checked(good, model).folder == good


def test_without_safetensors(good, monkeypatch):
    model = model_of(good)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(Unsupported, match=r"needs safetensors; pip install 'shardbench\[checkpoints\]'"):
        JaxEngine(checkpoint=str(good)).prepare(point(model))


def test_the_values_are_read_through_once(good, monkeypatch):
    read = []
    monkeypatch.setattr(source, "_CHECKED", set())
    monkeypatch.setattr(source.Checkpoint, "check_values", lambda self: read.append(self.folder))
    for _ in range(2):
        source.open_checked(good, model_of(good))
    assert read == [good]


def test_a_checkpoint_is_known_by_what_it_holds(good, folder):
    name, _, _ = identity(good).partition("@")
    assert name == "small"
    assert identity(folder) == identity(good)
    assert JaxEngine(checkpoint=str(good)).options == {"checkpoint": identity(good)}
    same, other = (JaxEngine(checkpoint=str(each)).options for each in (good, folder))
    assert same == other != JaxEngine().options
    rewritten(folder, filled(Q, 0.125))
    assert identity(folder) != identity(good)
    shutil.copytree(good, folder, dirs_exist_ok=True)
    configured(folder, rms_norm_eps=1e-5)
    assert identity(folder) != identity(good)
    assert JaxEngine(checkpoint=str(folder)).options != same


def test_the_engine_runs_it_and_its_row_names_it(good):
    program = JaxEngine(checkpoint=str(good)).prepare(point(model_of(good), phase="prefill"))
    checked = program.verify()
    assert checked.ok
    assert 0 < checked.max_relative_error < 1e-5
    assert program.facts().details["checkpoint"] == identity(good)
    program.close()
