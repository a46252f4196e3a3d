"""The reader on what XLA's GPU compiler wrote: a small model's programs, kept as text.

``a100-8-decode*``: gpt-20b with 4 layers, d_model 1024, 8 heads of 128, d_ff 4096 and 4096 tokens, three steps of batch
16 over 64 positions, tensor parallel over 8; float16 with Triton's products, and int8 weights with cuBLAS's.
``h100-8-prefill-looped``: llama-3-8b of like size (16 heads of 64, 8 of them for keys), 8 prompts of 128, ``ws_2d``
looped over 2×2×2. Metadata and frontend attributes are left out.
"""

import gzip
from collections import Counter
from pathlib import Path

import pytest
from compiled_cases import loop_of

from engines.compiled.cost.gpu import GpuCostModel
from engines.compiled.cost.timeline import walk
from engines.compiled.hlo.parser import parse_module
from engines.compiled.hlo.replica_groups import parse_groups
from engines.compiled.hlo.schedule import Kind, read_schedule
from engines.compiled.hotspots import hot_loop

DATA = Path(__file__).with_name("data")
NAMES = ("a100-8-decode", "a100-8-decode-cublas-int8", "h100-8-prefill-looped")
MACHINE = GpuCostModel(
    devices=8,
    peaks={"float16": 100e12, "bfloat16": 100e12},
    vector_flops_per_s=10e12,
    hbm_bytes_per_s=1e12,
    switch_bytes_per_s=100e9,
)


def schedule_of(name):
    return read_schedule(parse_module(gzip.decompress((DATA / f"{name}.hlo.gz").read_bytes()).decode()))


def matmul_flops(steps):
    """Operations of products, by format."""
    found = Counter()
    for step in steps:
        if step.flops is not None:
            found.update(step.flops.matmul)
    return dict(found)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_unknown_and_every_start_ends(name):
    schedule = schedule_of(name)
    assert not schedule.unknown
    turns = sorted(step.trips for steps in schedule.computations.values() for step in steps if step.kind is Kind.LOOP)
    assert turns == ([3, 4] if "decode" in name else [4])
    for steps in schedule.computations.values():
        started = [step.name for step in steps if step.kind is Kind.START]
        ended = [step.starts for step in steps if step.kind is Kind.DONE]
        assert set(started) <= set(ended)


@pytest.mark.parametrize(("name", "dtype"), [("a100-8-decode", "float16"), ("a100-8-decode-cublas-int8", "bfloat16")])
def test_a_layer_s_products_are_twice_its_weights_times_the_tokens(name, dtype):
    # q, k, v and o of 1024 × 1024, two of 1024 × 4096, an eighth of them on each GPU, 16 tokens; int8 is converted.
    weights = (4 * 1024 * 1024 + 2 * 1024 * 4096) / 8
    assert matmul_flops(loop_of(schedule_of(name), 4)) == {dtype: 2 * 16 * weights}


def test_a_step_s_logits_are_a_product_beside_the_layers():
    assert matmul_flops(loop_of(schedule_of("a100-8-decode"), 3)) == {"float16": 2 * 16 * 1024 * 4096 / 8}


def test_a_prefill_s_scores_are_products_too():
    # 1024 tokens, an eighth of 1024 × (16 + 2·8 + 16) · 64 and 3 · 1024 × 4096 weights; a prompt's 16 heads a GPU.
    weights = (1024 * 64 * (16 + 16 + 16) + 3 * 1024 * 4096) / 8
    scores = 2 * 2 * 16 * 64 * 128 * 128
    assert matmul_flops(loop_of(schedule_of("h100-8-prefill-looped"), 4)) == {"bfloat16": 2 * 1024 * weights + scores}


def test_a_call_of_cublas_moves_its_operands_and_result_and_no_workspace():
    steps = loop_of(schedule_of("a100-8-decode-cublas-int8"), 4)
    first = next(step for step in steps if step.opcode == "custom-call")
    assert first.matmul
    # x [16, 1024] and this GPU's 384 columns of the fused q, k and v in bfloat16; float32 comes out.
    assert first.hbm_bytes == 2 * 16 * 1024 + 2 * 1024 * 384 + 4 * 16 * 384


def test_the_cache_is_written_a_position_at_a_time():
    steps = loop_of(schedule_of("a100-8-decode"), 4)
    updates = [step for step in steps if step.name.startswith("loop_dynamic_update_slice_fusion")]
    # One of them only stores a position of one head: reads 16·128 float16 and writes as many.
    assert min(step.hbm_bytes for step in updates) == pytest.approx(2 * 16 * 128 * 2, rel=0.01)


def test_a_layer_of_tensor_parallelism_gathers_and_scatters_twice_over_all_gpus():
    steps = loop_of(schedule_of("a100-8-decode"), 4)
    wide = [step.collective for step in steps if step.collective and step.collective.whole_bytes == 2 * 16 * 1024]
    assert Counter(each.opcode for each in wide) == {"all-gather": 2, "reduce-scatter": 2}
    for each in wide:
        assert [len(group) for group in parse_groups(each.groups, 8)] == [8]
        assert each.shard_bytes == each.whole_bytes / 8
        assert MACHINE.collective_time(each).seconds == pytest.approx(2 * 16 * 1024 * 7 / 8 / 100e9)


def test_a_start_that_is_marked_as_synchronous_holds_the_stream():
    steps = loop_of(schedule_of("a100-8-decode"), 4)
    kinds = {step.name: step.kind for step in steps if step.collective}
    assert kinds["reduce-scatter-start"] is Kind.COLLECTIVE
    assert kinds["all-gather-start"] is Kind.START
    assert Kind.DONE in {step.kind for step in steps if step.starts == "reduce-scatter-start"}


@pytest.mark.parametrize("name", NAMES)
def test_an_account_s_parts_add_up(name):
    account = walk(schedule_of(name), MACHINE).account
    assert account.total_s == pytest.approx(account.compute_s + account.exposed_s + account.copy_wait_s)
    assert account.communication_s == pytest.approx(account.overlapped_s + account.exposed_s)
    # Numbers that count the turns of a loop are traffic that takes no time.
    assert account.memory_s <= account.compute_s * 1.0001
    assert account.unestimated == {}


def test_what_stands_between_start_and_done_hides_the_exchange():
    account = walk(schedule_of("h100-8-prefill-looped"), MACHINE).account
    assert 0 < account.overlapped_s < account.communication_s


def test_the_loop_over_layers_is_the_hot_one():
    told = hot_loop(schedule_of("a100-8-decode"), MACHINE)
    assert told["turns"] == 3 * 4
    seconds = sum(kind["seconds"] for kind in told["by_kind"])
    assert seconds == pytest.approx(told["seconds"], rel=0.01)
    assert sum(kind["count"] for kind in told["by_kind"] if kind["name"] == "all-gather") == 4
    assert [spot["seconds"] for spot in told["longest"]] == sorted(
        (s["seconds"] for s in told["longest"]), reverse=True
    )
    assert len(told["longest"]) == 10
    # The compiler copies the weights of a layer out of the stack of all layers before it multiplies by them.
    copied = next(kind for kind in told["by_kind"] if kind["name"] == "loop_dynamic_slice_fusion")
    assert copied["flops"] == 0
    assert copied["bound"] == "memory"
