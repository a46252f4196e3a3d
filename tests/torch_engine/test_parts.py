"""The parts of the torch engine by themselves."""

import dataclasses
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_cases import ARCHITECTURES, changed

from bench.sweep.catalog import load_model, names
from engines.core.errors import Unsupported
from engines.torch import peaks
from engines.torch.attention import CausalMask, attend
from engines.torch.collectives import Collectives
from engines.torch.devices import is_out_of_memory
from engines.torch.load_tensor import generate_on_device, load_tensor
from engines.torch.parameters import Matrix, ParameterLoader
from engines.torch.reference import reference_logits
from engines.torch.rope import Rope
from engines.torch.sequences import micro_batches
from engines.torch.shard import Shard
from engines.torch.transformer import Transformer
from engines.transformer.reference import reference_logits as reference_of_jax
from engines.weights.random import Tensor, prompt, tensors, values

pytestmark = pytest.mark.slow(seconds=0.05)

CPU = torch.device("cpu")


@pytest.mark.thorough(every=2)
@pytest.mark.parametrize("model", ARCHITECTURES)
def test_the_reference_is_that_of_jax(model):
    architecture = ARCHITECTURES[model]
    ids = prompt(architecture, 2, 9, 5)
    ours = reference_logits(architecture, torch.from_numpy(ids).long(), [0, 3, 8], 5).numpy()
    assert np.abs(ours - reference_of_jax(architecture, ids, [0, 3, 8], 5)).max() < 2e-5


@given(
    shape=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_weights_of_the_device_are_those_of_the_host_to_the_bit(shape, seed, data):
    spec = Tensor("layers.0.q", tuple(shape), 0.25, 1.0)
    index = []
    for size in shape:
        start = data.draw(st.integers(0, size))
        index.append(slice(start, data.draw(st.integers(start, size))))
    assert np.array_equal(generate_on_device(spec, seed, index, CPU).numpy(), values(spec, seed, index))


def test_weights_are_made_on_the_device_and_no_value_on_the_host():
    """Tensors of the meta device have no values, and do not mix with those of the host."""
    spec, part = Tensor("layers.0.q", (8, 6), 0.1), (slice(2, 5), slice(None))
    made = generate_on_device(spec, 3, part, torch.device("meta"))
    assert (made.device.type, made.shape) == ("meta", (3, 6))
    assert load_tensor(spec, 3, part, torch.device("meta")).shape == (3, 6)


def test_weights_beyond_32_bits_and_in_chunks(monkeypatch):
    spec = Tensor("embedding", (1 << 20, 1 << 13), 1.0)
    index = [slice((1 << 20) - 3, 1 << 20), slice(5, 9)]
    assert np.array_equal(generate_on_device(spec, 3, index, CPU).numpy(), values(spec, 3, index))
    monkeypatch.setattr("engines.torch.load_tensor.CHUNK_VALUES", 10)
    small = Tensor("lm_head", (13, 4), 1.0)
    everything = [slice(None), slice(None)]
    assert np.array_equal(generate_on_device(small, 3, everything, CPU).numpy(), values(small, 3, everything))


@pytest.mark.thorough(every=4)
@pytest.mark.parametrize("model", names("model"))
@pytest.mark.parametrize(("tensor", "pipeline"), [(1, 1), (2, 1), (4, 2), (8, 3)])
def test_shards_hold_everything_once(model, tensor, pipeline):
    shards = [Shard(load_model(model), tensor, pipeline, rank) for rank in range(tensor * pipeline)]
    try:
        shards[0].check()
    except Unsupported:
        return
    architecture = shards[0].model
    for stage in range(pipeline):
        mine = [shard for shard in shards if shard.stage == stage]
        for attribute, size in (
            ("heads", architecture.num_heads),
            ("columns", architecture.d_ff),
            ("vocab", architecture.vocab_size),
        ):
            parts = [getattr(shard, attribute) for shard in mine]
            assert [each for part in parts for each in range(part.start, part.stop)] == list(range(size))
        for shard in mine:
            # Every query head finds its key/value head on its own rank.
            group = architecture.num_heads // architecture.num_kv_heads
            assert {head // group for head in range(shard.heads.start, shard.heads.stop)} == set(
                range(shard.kv_heads.start, shard.kv_heads.stop)
            )
    firsts = [shard for shard in shards if shard.tensor_rank == 0]
    assert [layer for shard in firsts for layer in shard.layers] == list(range(architecture.num_layers))
    assert [shard.is_first for shard in firsts] == [True] + [False] * (pipeline - 1)
    assert [shard.is_last for shard in firsts] == [False] * (pipeline - 1) + [True]


@pytest.mark.parametrize(
    ("model", "tensor", "pipeline", "key"),
    [
        (changed(), 16, 1, "num_heads=8"),
        (changed(num_heads=6, num_kv_heads=6), 4, 1, "num_heads=6"),
        (changed(d_ff=1022), 4, 1, "d_ff=1022"),
        (changed(num_heads=12, num_kv_heads=3), 2, 1, "num_kv_heads=3"),
        (changed(), 1, 4, "num_layers=3"),
    ],
)
def test_what_does_not_split_is_refused(model, tensor, pipeline, key):
    with pytest.raises(Unsupported, match=key):
        Shard(model, tensor, pipeline, 0).check()


@given(batch=st.integers(1, 40), stages=st.integers(1, 9))
def test_micro_batches_hold_every_sequence_once(batch, stages):
    parts = micro_batches(batch, stages)
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(batch))
    assert len(parts) == min(batch, stages)
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_int8_is_within_half_a_step_of_every_channel():
    shard = Shard(changed(), 1, 1, 0)
    matrix = ParameterLoader(shard, 0, CPU, "int8", "float32").load().layers[0].matrices["wo"]
    full = load_tensor(tensors(shard.model)["layers.0.wo"], 0, [slice(None)] * 2, CPU).T
    assert matrix.weight.dtype == torch.int8
    assert matrix.scale.shape == (shard.model.d_model,)
    error = (matrix.weight.float() * matrix.scale[:, None] - full).abs().amax(dim=1)
    assert (error <= matrix.scale / 2 * 1.001).all()
    # The largest of a channel is 127 steps.
    assert (matrix.weight.abs().amax(dim=1) == 127).all()
    x = torch.randn(2, full.shape[1])
    assert torch.allclose(matrix(x), x @ (matrix.weight.float() * matrix.scale[:, None]).T, atol=1e-5)


def test_an_int8_matrix_gives_its_rows():
    matrix = Matrix(torch.tensor([[1, 2], [3, 4], [-5, 6]], dtype=torch.int8), torch.tensor([0.5, 1.0, 2.0]))
    assert matrix.rows(torch.tensor([[2, 0]]), torch.float32).tolist() == [[[-10.0, 12.0], [0.5, 1.0]]]


def test_weights_are_as_many_bytes_as_the_model_counts():
    for name in ("palm", "gpt", "llama", "gpt-j"):
        model = ARCHITECTURES[name]
        made = ParameterLoader(Shard(model, 1, 1, 0), 0, CPU, "float32", "float32").load()
        assert sum(each.nbytes for each in made.all()) == 4 * model.params, name


def test_greedy_takes_the_lowest_of_equals():
    shard = Shard(changed(vocab_size=4), 1, 1, 0)
    made = ParameterLoader(shard, 0, CPU, "float32", "float32").load()
    transformer = Transformer(shard, made, Collectives(shard, 60), 4, torch.float32)
    scores = torch.tensor([[0.0, 2.0, 2.0, 1.0], [3.0, 3.0, 3.0, 3.0], [0.0, -torch.inf, 0.0, 9.0]])
    assert transformer.greedy(scores).tolist() == [1, 0, 3]


def test_rotary_turns_by_the_position():
    rope = Rope(dataclasses.replace(changed(), head_dim=2), 8, CPU)
    x = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    turned = rope.rotate(x, rope.at(torch.tensor([3]))).flatten()
    # One pair with frequency 1: (1, 0) at position 3 points to 3 radians.
    assert turned.tolist() == pytest.approx([np.cos(3.0), np.sin(3.0)], abs=1e-6)
    assert torch.equal(rope.rotate(x, rope.at(torch.tensor([0]))), x)


def test_attention_reads_what_is_cached_and_no_more():
    cache = (
        torch.full((1, 1, 4, 2), 100.0),
        torch.full((1, 1, 4, 2), 100.0),
    )  # what lies beyond the position must not be seen
    one = torch.ones(1, 1, 2, 2)
    keys = torch.zeros(1, 1, 1, 2)
    attend(one, keys, torch.full((1, 1, 1, 2), 2.0), cache, CausalMask(torch.tensor([0]), 1, exact=True))
    for mask in (CausalMask(torch.tensor([1]), 2, exact=True), CausalMask(torch.tensor([1]), 4, exact=False)):
        out = attend(one, keys, torch.full((1, 1, 1, 2), 4.0), cache, mask)
        # Equal keys: the mean of the values 2 and 4, for both query heads.
        assert out.flatten().tolist() == pytest.approx([3.0] * 4)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("NCCL error: Cuda failure 2 'out of memory'"), True),
        (RuntimeError("shape '[3]' is invalid for input of size 4"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (ValueError("out of memory"), False),
        (KeyError("k"), False),
    ],
)
def test_only_memory_is_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


def test_memory_that_ran_out_while_a_graph_was_recorded_is_told_by_what_came_before():
    with pytest.raises(RuntimeError, match="capture") as caught:  # noqa: PT012
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
    assert is_out_of_memory(caught.value)


def test_an_allocation_that_the_host_refuses_is_out_of_memory():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.float32)
    assert is_out_of_memory(caught.value)


def test_peaks_are_measured_in_series_of_launches(monkeypatch):
    runs = []
    monkeypatch.setattr(peaks, "LAUNCHES", {"cpu": 8})
    monkeypatch.setattr(peaks, "MEASURE_S", 0.0)
    seconds = peaks._best_s(lambda: runs.append(time.sleep(0.002)), CPU)
    assert len(runs) == 1 + 3 * 8
    assert seconds >= 0.002


def test_the_peak_of_a_cpu_is_at_least_the_rate_of_the_program_s_own_matmul(monkeypatch):
    monkeypatch.setattr(peaks, "MATRIX_SIZES", {"cpu": (64,)})
    rates = {(64, 64, 64): 2e9, (2048, 256, 1024): 3e9}
    monkeypatch.setattr(peaks, "_matmul_flops_per_s", lambda product, *_: rates[product])
    flops, _ = peaks._peaks(CPU, torch.float32, (2048, 256, 1024))
    assert flops == 3e9


def test_peaks_are_unknown_where_memory_runs_out_and_are_asked_again(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(peaks, "_peaks", full)
    assert peaks.measured_peaks(CPU, torch.float32, (8, 8, 8)) is None
    monkeypatch.setattr(peaks, "_peaks", lambda *_: (2.0, 1.0))
    assert peaks.measured_peaks(CPU, torch.float32, (8, 8, 8)) == (2.0, 1.0)
