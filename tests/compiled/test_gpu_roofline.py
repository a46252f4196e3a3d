"""Rooflines, switches and operations counted, by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.sweep.catalog import load_chip, names
from engines.compiled.cost.gpu import GpuCostModel, gpu_cost_model, vector_flops_per_s
from engines.compiled.cost.nvswitch import collective_time
from engines.compiled.cost.timeline import walk
from engines.compiled.hlo.collective import Collective
from engines.compiled.hlo.flops import flops_of, multiplies
from engines.compiled.hlo.parser import parse_module
from engines.compiled.hlo.schedule import Kind, read_schedule
from engines.compiled.hotspots import hot_loop
from engines.compiled.perfetto import trace_events
from engines.compiled.target.gpu import gpu_target_of
from engines.core.errors import Unsupported
from engines.core.slice import slice_of

HEAD = "HloModule by_hand, is_scheduled=true\n\n"
PROGRAM = (
    HEAD
    + """\
%product (a: bf16[16,256], w: s8[256,512]) -> f32[16,512] {
  %a = bf16[16,256]{1,0} parameter(0)
  %w = s8[256,512]{1,0} parameter(1)
  %wide = bf16[256,512]{1,0} convert(%w)
  ROOT %dot = f32[16,512]{1,0} dot(%a, %wide), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%sum (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %add = f32[] add(%x, %y)
}

%scores (q: f32[4,64], k: f32[4,64]) -> f32[4] {
  %q = f32[4,64]{1,0} parameter(0)
  %k = f32[4,64]{1,0} parameter(1)
  %times = f32[4,64]{1,0} multiply(%q, %k)
  %zero = f32[] constant(0)
  ROOT %reduced = f32[4]{0} reduce(%times, %zero), dimensions={1}, to_apply=%sum
}

ENTRY %main (x: bf16[16,256], w: s8[256,512], q: f32[4,64], s: s8[64,64]) -> f32[16,512] {
  %x = bf16[16,256]{1,0} parameter(0)
  %w = s8[256,512]{1,0} parameter(1)
  %q = f32[4,64]{1,0} parameter(2)
  %s = s8[64,64]{1,0} parameter(3)
  %gemm_fusion_dot.1 = f32[16,512]{1,0} fusion(%x, %w), kind=kCustom, calls=%product
  %input_reduce_fusion.2 = f32[4]{0} fusion(%q, %q), kind=kInput, calls=%scores
  %narrow = s32[64,64]{1,0} dot(%s, %s), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %batched = f32[4,4]{1,0} dot(%q, %q), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  %call = (f16[16,32]{1,0}, s8[4194304]{0}) custom-call(%x, %w), custom_call_target="__cublas$gemm", \
backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}
  %other = f32[16,512]{1,0} custom-call(%x), custom_call_target="somebody$else"
  %all-gather-start = (f32[16,64]{1,0}, f32[16,512]{1,0}) all-gather-start(%gemm_fusion_dot.1), \
replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={1}, \
backend_config={"collective_backend_config":{"is_sync":true}}
  %all-gather-done = f32[16,512]{1,0} all-gather-done(%all-gather-start)
  ROOT %exp = f32[16,512]{1,0} exponential(%gemm_fusion_dot.1)
}
"""
)
MACHINE = GpuCostModel(
    devices=8,
    peaks={"bfloat16": 4e6, "int8": 8e6},
    vector_flops_per_s=1e6,
    hbm_bytes_per_s=1e6,
    switch_bytes_per_s=1e5,
)


def counted(name):
    module = parse_module(PROGRAM)
    computation = module[module.entry]
    return flops_of(module, computation, computation.by_name[name])


def steps():
    return {step.name: step for step in read_schedule(parse_module(PROGRAM)).computations["main"]}


@pytest.mark.parametrize(
    ("name", "matmul", "vector"),
    [
        ("gemm_fusion_dot.1", {"bfloat16": 2 * 16 * 256 * 512}, {}),  # the weights are converted to what x is
        ("narrow", {"int8": 2 * 64**3}, {}),
        ("batched", {"float32": 2 * 4 * 4 * 64}, {}),
        ("input_reduce_fusion.2", {}, {"float32": 2 * 4 * 64}),  # a product of vectors: multiply, then add
        ("call", {"bfloat16": 2 * 16 * 32 * 256}, {}),
        ("exp", {}, {"float32": 16 * 512}),
    ],
)
def test_operations_by_hand(name, matmul, vector):
    found = counted(name)
    assert (dict(found.matmul), dict(found.vector)) == (matmul, vector)
    assert found.total == sum(matmul.values()) + sum(vector.values())


def test_code_that_the_module_does_not_hold_is_not_counted_but_told():
    assert counted("other") is None
    account = walk(read_schedule(parse_module(PROGRAM)), MACHINE).account
    assert account.unestimated == {"custom-call somebody$else": 1}
    assert account.unestimated_s == pytest.approx((2 * 16 * 256 + 4 * 16 * 512) / 1e6)


def test_which_instructions_multiply_matrices():
    module = parse_module(PROGRAM)
    entry = module[module.entry].instructions
    found = {each.name for each in entry if multiplies(module, each)}
    assert found == {"gemm_fusion_dot.1", "narrow", "batched", "call"}


def test_an_instruction_takes_the_longer_of_arithmetic_and_traffic():
    by_name = steps()
    product = MACHINE.compute_time(by_name["gemm_fusion_dot.1"])
    assert product.seconds == pytest.approx(2 * 16 * 256 * 512 / 4e6)
    assert product.bound == "compute"
    scores = MACHINE.compute_time(by_name["input_reduce_fusion.2"])
    # q is read twice, as the two operands that it is.
    assert scores.seconds == pytest.approx((2 * 4 * 4 * 64 + 4 * 4) / 1e6)
    assert scores.bound == "memory"
    assert MACHINE.compute_time(by_name["narrow"]).seconds == pytest.approx(2 * 64**3 / 8e6)
    # A format that the datasheet states no peak for gets the highest: a bound stays one.
    assert MACHINE.matmul_peak("float8_e4m3") == 8e6


def test_a_cache_at_its_best_keeps_every_value_that_fits_and_no_other():
    step, machine = steps()["gemm_fusion_dot.1"], replace(MACHINE, peaks={"bfloat16": 1e12}, l2_bytes=40000)
    x, weights, result = 2 * 16 * 256, 256 * 512, 4 * 16 * 512
    assert [each.bytes for each in step.transfers] == [x, weights, result]
    assert machine.compute_time(step).seconds == pytest.approx((x + weights + result) / 1e6)
    assert machine.best_case().compute_time(step).seconds == pytest.approx(weights / 1e6)
    assert replace(machine, l2_bytes=1e9).best_case().compute_time(step).bound == "compute"


def test_a_synchronous_start_is_a_collective_and_its_done_waits_for_nothing():
    by_name = steps()
    assert by_name["all-gather-start"].kind is Kind.COLLECTIVE
    assert by_name["all-gather-start"].collective.whole_bytes == 4 * 16 * 512
    account = walk(read_schedule(parse_module(PROGRAM)), MACHINE).account
    assert account.communication_s == pytest.approx(4 * 16 * 512 * 7 / 8 / 1e5)
    assert account.exposed_s == pytest.approx(account.communication_s)


def test_a_bar_of_the_trace_tells_operations_bytes_and_what_bounds_them():
    trace = trace_events(walk(read_schedule(parse_module(PROGRAM)), MACHINE), "by hand", 1)
    bars = {(bar["name"], bar["cat"]): bar["args"] for bar in trace["traceEvents"] if bar["ph"] == "X"}
    product = bars["gemm_fusion_dot.1", "matmul"]
    moved = 2 * 16 * 256 + 256 * 512 + 4 * 16 * 512
    assert (product["flops"], product["bytes"], product["bound"]) == (2 * 16 * 256 * 512, moved, "compute")
    assert product["flops_per_byte"] == pytest.approx(product["flops"] / moved, abs=0.001)
    assert "cycles" not in product
    assert bars["all-gather-start", "all-gather"]["bound"] == "link"
    assert "flops" not in bars["other", "custom-call"]


def test_the_hot_loop_of_a_program_without_loops_is_all_of_it():
    told = hot_loop(read_schedule(parse_module(PROGRAM)), MACHINE)
    assert told["turns"] == 1
    kinds = {kind["name"]: kind for kind in told["by_kind"]}
    assert kinds["gemm_fusion_dot"]["bound"] == "compute"
    assert kinds["all-gather"]["bound"] == "link"
    assert "flops" not in kinds["all-gather"]
    assert told["seconds"] == pytest.approx(sum(kind["seconds"] for kind in told["by_kind"]), rel=1e-3)


def collective(opcode, whole, groups="{{0,1,2,3,4,5,6,7}}", pairs="", shard=None):
    return Collective(
        opcode=opcode,
        whole_bytes=whole,
        shard_bytes=whole / 8 if shard is None else shard,
        groups=groups,
        pairs=pairs,
        emitter="",
        strategy="",
        colors=None,
    )


@pytest.mark.parametrize(
    ("opcode", "groups", "bytes_sent"),
    [
        ("all-gather", "{{0,1,2,3,4,5,6,7}}", 7e6),
        ("reduce-scatter", "[1,8]<=[8]", 7e6),
        ("all-reduce", "{{0,1,2,3,4,5,6,7}}", 14e6),
        ("all-to-all", "{{0,1,2,3},{4,5,6,7}}", 6e6),
        ("all-gather", "{{0,4},{1,5},{2,6},{3,7}}", 4e6),
        ("collective-broadcast", "{{0,1,2,3,4,5,6,7}}", 8e6),
        ("all-gather", "", 7e6),
        ("all-reduce", "{{0},{1},{2},{3},{4},{5},{6},{7}}", 0),
    ],
)
def test_a_switch_by_hand(opcode, groups, bytes_sent):
    timed = collective_time(collective(opcode, 8e6, groups), 8, 1e9)
    assert timed.seconds == pytest.approx(bytes_sent / 1e9)
    assert timed.latency_s == 0
    assert bool(timed.lanes) == bool(bytes_sent)


def test_a_permute_takes_as_long_as_the_busiest_gpu():
    ring = collective("collective-permute", 1e6, pairs="{{0,1},{1,2},{2,3},{3,0}}", shard=1e6)
    assert collective_time(ring, 8, 1e9).seconds == pytest.approx(1e-3)
    twice = collective("collective-permute", 1e6, pairs="{{0,1},{0,2},{3,2}}", shard=1e6)
    assert collective_time(twice, 8, 1e9).seconds == pytest.approx(2e-3)
    nobody = collective("collective-permute", 1e6, pairs="{{0,0},{1,1}}", shard=1e6)
    assert collective_time(nobody, 8, 1e9).seconds == 0


@given(whole=st.floats(1e3, 1e12), bandwidth=st.floats(1e9, 1e12), count=st.sampled_from([2, 4, 8]))
def test_an_all_reduce_is_a_scatter_and_a_gather(whole, bandwidth, count):
    groups = f"[{8 // count},{count}]<=[8]"

    def seconds(opcode):
        return collective_time(collective(opcode, whole, groups), 8, bandwidth).seconds

    assert seconds("all-reduce") == pytest.approx(seconds("reduce-scatter") + seconds("all-gather"))
    assert seconds("all-gather") < whole / bandwidth


def test_the_target_s_description_is_the_datasheet_and_what_cuda_reports():
    chip = load_chip("a100-80gb")
    text = gpu_target_of(slice_of(chip, 8)).text
    for line in (
        "core_count: 108",
        "memory_bandwidth: 2039000000000",
        f"device_memory_size: {80 * 2**30}",
        "cuda_compute_capability { major: 8 minor: 0 }",
        "shared_memory_per_block_optin: 166912",
        "clock_rate_ghz: 1.4106",
        'device_description_str: "a100-80gb"',
    ):
        assert line in text


def vector_flops(name):
    chip = load_chip(name)
    return vector_flops_per_s(chip, chip.cuda)


def test_the_clock_follows_from_the_peak_and_gives_the_rate_outside_tensor_cores():
    # In float32 outside tensor cores NVIDIA's datasheets state 19.5 TFLOP/s, and 67 for the H100 at a boost of its own.
    assert vector_flops("a100-80gb") == pytest.approx(19.5e12, rel=0.002)
    assert 50e12 < vector_flops("h100-80gb") < 67e12


def test_every_gpu_is_described_to_the_compiler_and_timed():
    gpus = [chip for chip in map(load_chip, names("hw")) if chip.cuda is not None]
    assert len(gpus) > 4
    assert len({gpu_target_of(slice_of(chip, chip.node_size)).text for chip in gpus}) == len(gpus)
    for chip in gpus:
        assert gpu_cost_model(chip, chip.node_size).describe()["roofline"]["hbm_bytes_per_s"] == chip.hbm_bytes_per_s


def test_a_datasheet_without_a_bandwidth_is_refused():
    with pytest.raises(Unsupported, match="node_bytes_per_s is not known"):
        gpu_cost_model(replace(load_chip("a100-80gb"), node_bytes_per_s=None), 8)
    with pytest.raises(Unsupported, match="hw=a100-80gb: XLA's CUDA compiler"):
        gpu_target_of(slice_of(replace(load_chip("a100-80gb"), cuda=None), 8))
