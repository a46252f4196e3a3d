"""Every range of every canonical tensor is what the files hold, and each device reads its own ranges alone."""

import math
import subprocess
import sys
from functools import partial

import hypothesis.strategies as st
import jax
import ml_dtypes
import numpy as np
import pytest
from builders.plans import mesh_of
from builders.plans import plan_of as build_plan
from builders.unfuse import unfuse
from checkpoint_cases import EVERY, saved
from hypothesis import given, settings
from jax.sharding import NamedSharding
from safetensors.numpy import load_file

from engines.transformer.params import parameters
from engines.transformer.params.describe import described
from engines.transformer.params.fusion import Fusion, input_parts, output_parts
from engines.transformer.params.parameters import make_parameters
from engines.weights.checkpoint.describe import model_of
from engines.weights.checkpoint.source import Checkpoint
from engines.weights.random import tensors, values

MESH = (2, 2, 2)

pytestmark = pytest.mark.usefixtures("plainly_compiled")


@pytest.fixture(scope="module", params=EVERY)
def opened(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    saved(request.param, folder)
    return Checkpoint(folder, model_of(folder))


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    saved("llama", folder)
    return Checkpoint(folder, model_of(folder))


plan_of = partial(build_plan, shape=MESH, ffn_layout="ws_2d", cache_len=8)


def mesh():
    return mesh_of(MESH)


def test_the_stored_tensors_come_back_out_of_the_canonical_ones(opened):
    held = load_file(opened.folder / "model.safetensors")
    rebuilt = {name: np.full(each.shape, np.nan, np.float32) for name, each in held.items()}
    for name, tensor in tensors(model_of(opened.folder)).items():
        place = opened.locations[name]
        stack = values(tensor, opened).reshape(place.stack or 1, place.rows, place.columns)
        for number, matrix in enumerate(stack):
            stored_name, before = place.stored(number)
            stored = rebuilt[stored_name][before][0] if before else rebuilt[stored_name]
            for start, first, length in place.runs:
                columns, lines = slice(start, start + length), slice(first, first + length * place.step, place.step)
                target = stored[..., lines] if not place.transposed else stored[lines].T
                target = target[place.first_row :] if target.ndim == 2 else target
                assert np.isnan(target).all(), "read twice"
                part = matrix[:, columns] - np.float32(place.added)
                target[...] = part if target.ndim == 2 else part[0]
    for name, each in held.items():
        unused = np.isnan(rebuilt[name])
        # OPT's table has two rows for padding, which no token has.
        assert unused.sum() == (2 * each.shape[-1] if "embed_positions" in name else 0), name
        assert np.allclose(rebuilt[name][~unused], each[~unused], rtol=0, atol=3e-7), name


def test_fusing_a_checkpoint_loses_nothing(opened):
    model = model_of(opened.folder)
    if model.num_experts is not None or model.kv_latent_dim is not None:
        pytest.skip("its matrices are not fused in this way")
    plan = plan_of(model)
    fusion = Fusion(plan, opened)
    rows, chunks = slice(0, model.d_model), slice(0, plan.chips)
    for axis, parts in ((1, input_parts(plan)), (0, output_parts(plan))):
        for part in parts.values():
            fused = fusion.inputs(part, 1, rows, chunks) if axis else fusion.outputs(part, 1, chunks, rows)
            for name, _ in part:
                tensor = fusion.canonical[f"layers.1.{name}"]
                back = unfuse(plan, fused, part, tensor, axis=axis)
                assert np.array_equal(back, values(tensor, opened)), name


@pytest.mark.thorough(every=4)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_range_is_the_range_of_the_whole(opened, data):
    model = model_of(opened.folder)
    tensor = data.draw(st.sampled_from(sorted(tensors(model).values(), key=lambda each: each.name)))
    whole = values(tensor, opened)
    stacked = opened.locations[tensor.name].stack is not None
    if data.draw(st.booleans()) and len(tensor.shape) == 3 and not stacked:
        end = data.draw(st.sampled_from([1, 2]) if tensor.shape[-1] != model.d_model else st.just(2))
        end = end if opened.locations[tensor.name].rows == math.prod(tensor.shape[:end]) else 3 - end
        tensor = tensor.reshaped(math.prod(tensor.shape[:end]), math.prod(tensor.shape[end:]))
        whole = whole.reshape(tensor.shape)
    index = []
    for size in tensor.shape:
        start = data.draw(st.integers(0, size))
        index.append(slice(start, data.draw(st.integers(start, size))))
    part = values(tensor, opened, index)
    assert part.dtype == np.float32
    assert np.array_equal(part, whole[tuple(index)])


class Recorder:
    """Counts the values that are read of each stored tensor."""

    def __init__(self, checkpoint):
        self.read, self.counts = checkpoint.files.read, {}
        checkpoint.files.read = self

    def __call__(self, name, *index):
        found = self.read(name, *index)
        self.counts[name] = self.counts.get(name, 0) + found.size
        return found


@pytest.mark.parametrize("ffn_layout", ["ws_1d", "ws_2d"])
def test_each_device_reads_its_slice_alone(one, ffn_layout, monkeypatch):
    monkeypatch.setattr(one.files, "read", one.files.read)
    recorder = Recorder(one)
    plan = plan_of(model_of(one.folder), ffn_layout=ffn_layout)
    matrices = [name for name, each in one.files.entries.items() if len(each.shape) == 2]
    devices = mesh().devices.flat
    totals = dict.fromkeys(matrices, 0)
    for device in devices:
        recorder.counts.clear()
        for each in jax.tree.leaves(described(plan, one)):
            index = NamedSharding(mesh(), each.spec).devices_indices_map(each.shape)[device]
            each.fill(tuple(slice(*at.indices(size)[:2]) for at, size in zip(index, each.shape, strict=True)))
        for name in matrices:
            size = math.prod(one.files.entries[name].shape)
            # An eighth each; the 61 rows of the vocabulary are 8, and 5 for the last.
            most = 8 * 32 if "embed" in name or "lm_head" in name else size / 8
            assert recorder.counts[name] <= most, name
            totals[name] += recorder.counts[name]
    assert totals == {name: math.prod(one.files.entries[name].shape) for name in matrices}


def test_scales_take_whole_columns_and_no_others(one, monkeypatch):
    monkeypatch.setattr(one.files, "read", one.files.read)
    recorder = Recorder(one)
    plan = plan_of(model_of(one.folder), weight_dtype="int8")
    each = described(plan, one).layers[0].ffn.inputs.values
    index = NamedSharding(mesh(), each.spec).devices_indices_map(each.shape)[mesh().devices.flat[0]]
    each.fill(tuple(slice(*at.indices(size)[:2]) for at, size in zip(index, each.shape, strict=True)))
    # Over 2×2×2 a device holds half the rows of a quarter of the columns, whose scales take the other half too.
    size = 32 * 64
    names = {f"model.layers.{layer}.mlp.{name}_proj.weight" for layer in (0, 1) for name in ("gate", "up")}
    assert recorder.counts == dict.fromkeys(names, size // 4 + size // 8)


def test_making_the_arrays_reads_every_matrix_once(one, monkeypatch):
    monkeypatch.setattr(one.files, "read", one.files.read)
    recorder = Recorder(one)
    made = make_parameters(plan_of(model_of(one.folder)), mesh(), one)
    sizes = {name: math.prod(each.shape) for name, each in one.files.entries.items()}
    assert {name: recorder.counts[name] for name in sizes if "norm" not in name} == {
        name: size for name, size in sizes.items() if "norm" not in name
    }
    table = np.asarray(made.embedding.values)[:61]
    assert np.array_equal(table, load_file(one.folder / "model.safetensors")["model.embed_tokens.weight"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_formats_are_read_as_they_are(dtype, tmp_path):
    saved("llama", tmp_path, dtype)
    opened = Checkpoint(tmp_path, model_of(tmp_path))
    held = load_file(tmp_path / "model.safetensors")
    table = held["model.embed_tokens.weight"]
    assert table.dtype == np.dtype({"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}[dtype])
    tensor = tensors(model_of(tmp_path))["embedding"]
    assert np.array_equal(values(tensor, opened), table.astype(np.float32))
    made = make_parameters(plan_of(model_of(tmp_path), weight_dtype=dtype), mesh(), opened)
    assert np.array_equal(np.asarray(made.embedding.values)[:61], table)


def test_bfloat16_is_known_without_jax(tmp_path):
    saved("llama", tmp_path, "bfloat16")
    code = (
        "import sys; from pathlib import Path; from engines.weights.checkpoint.describe import model_of\n"
        "from engines.weights.checkpoint.source import open_checked\n"
        "from engines.weights.random import tensors, values\n"
        f"folder = Path({str(tmp_path)!r}); model = model_of(folder); opened = open_checked(folder, model)\n"
        "print(values(tensors(model)['final_norm.scale'], opened).sum(), 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    total, with_jax = done.stdout.split()
    norm = load_file(tmp_path / "model.safetensors")["model.norm.weight"].astype(np.float32)
    assert float(total) == pytest.approx(norm.sum(), rel=1e-6)
    assert with_jax == "False"


def test_rows_at_a_time_are_the_rows_of_the_whole(one, monkeypatch):
    plan = plan_of(model_of(one.folder), weight_dtype="bfloat16")
    whole = make_parameters(plan, mesh(), one)
    monkeypatch.setattr(parameters, "rows_at_once", lambda shape: 1)
    assert jax.tree.all(jax.tree.map(np.array_equal, make_parameters(plan, mesh(), one), whole))


def test_int8_scales_are_those_of_whole_columns(one):
    made = make_parameters(plan_of(model_of(one.folder), weight_dtype="int8"), mesh(), one)
    table = values(tensors(model_of(one.folder))["embedding"], one)
    scale = np.asarray(made.embedding.scale)[:61]
    assert np.array_equal(scale, np.abs(table).max(axis=1) / np.float32(127))
    assert np.array_equal(np.asarray(made.embedding.values)[:61], np.round(table / scale[:, None]))


def test_several_files_are_read_as_one(one, tmp_path):
    saved("llama", tmp_path, max_shard_size="20KB")
    split = Checkpoint(tmp_path, model_of(tmp_path))
    assert len({each.file for each in split.files.entries.values()}) > 2
    for name, tensor in tensors(model_of(tmp_path)).items():
        assert np.array_equal(values(tensor, split), values(tensor, one)), name
