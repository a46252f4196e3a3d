"""The reader on what the compiler wrote for every TPU generation: a small model's three decode steps, kept as text.

The programs are of palm-8b with 4 layers, d_model 2048 and d_ff 8192, batch 64, 256 positions, ``ws_2d`` with attention
over the batch; their metadata is left out.
"""

import gzip
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from compiled_cases import loop_of

from engines.compiled.cost.timeline import walk
from engines.compiled.cost.torus import Torus
from engines.compiled.cost.tpu import TpuCostModel
from engines.compiled.hlo.parser import parse_module
from engines.compiled.hlo.replica_groups import group_axes, parse_groups, parse_pairs, permute_hops
from engines.compiled.hlo.schedule import UPDATE, Kind, read_schedule
from engines.compiled.perfetto import trace_events
from engines.core.chip import LinkConstants

DATA = Path(__file__).with_name("data")
X, Y, Z, CORES = range(4)
TORI = {
    "v4-2x2x2": (2, 2, 2),
    "v4-2x2x2-gspmd": (2, 2, 2),
    "v4-4x4x4-oneway": (4, 4, 4),
    "v5e-2x4": (2, 4, 1),
    "v5p-2x2x2": (2, 2, 2),
    "v6e-2x4": (2, 4, 1),
    "tpu7x-1x2x2": (1, 2, 2, 2),
}


def text_of(name):
    return gzip.decompress((DATA / f"{name}.hlo.gz").read_bytes()).decode()


def schedule_of(name):
    return read_schedule(parse_module(text_of(name)))


def machine_of(name):
    shape = TORI[name]
    torus = Torus(shape=shape, wrap=tuple(size % 4 == 0 for size in shape), link_bytes_per_s=50e9)
    return TpuCostModel(
        clock_hz=1e9,
        hbm_bytes_per_s=1e12,
        torus=torus,
        links=LinkConstants(link_efficiency=1.0, hop_s=1e-6, launch_s=0.0),
    )


def axes_of(collective, shape):
    if collective.opcode == "collective-permute":
        hops, _ = permute_hops(parse_pairs(collective.pairs), shape, [size % 4 == 0 for size in shape])
        return tuple(sorted({hop.axis for hop in hops}))
    devices = 1
    for size in shape:
        devices *= size
    return group_axes(parse_groups(collective.groups, devices), shape)


@pytest.mark.parametrize("name", TORI)
def test_nothing_is_unknown_and_both_loops_are_counted(name):
    schedule = schedule_of(name)
    assert not schedule.unknown
    turns = sorted(step.trips for steps in schedule.computations.values() for step in steps if step.kind is Kind.LOOP)
    assert turns == [3, 4]  # steps, and in each of them layers


@pytest.mark.parametrize("name", TORI)
def test_every_start_has_its_done(name):
    for steps in schedule_of(name).computations.values():
        started = {step.name for step in steps if step.kind is Kind.START}
        ended = {step.starts for step in steps if step.kind is Kind.DONE and not step.opcode.endswith(UPDATE)}
        assert started == ended


@pytest.mark.parametrize("name", ["v4-2x2x2", "v5p-2x2x2"])
def test_a_layer_sends_what_the_layout_says(name):
    collectives = [step.collective for step in loop_of(schedule_of(name), 4) if step.collective]
    found = Counter((each.opcode, axes_of(each, TORI[name])) for each in collectives)
    assert found == {
        ("all-reduce", (X, Y, Z)): 1,  # the norm's two sums
        ("all-gather", (Y, Z)): 1,
        ("reduce-scatter", (X,)): 1,
        ("all-to-all", (X, Y, Z)): 2,
        ("all-gather", (X,)): 1,
        ("reduce-scatter", (Y, Z)): 1,
    }
    # 64 sequences × 1024 of E in bf16 are gathered over the four chips of y and z.
    (gathered,) = [each for each in collectives if (each.opcode, axes_of(each, TORI[name])) == ("all-gather", (Y, Z))]
    assert gathered.whole_bytes == 64 * 1024 * 2
    assert gathered.shard_bytes == gathered.whole_bytes / 4


def test_what_another_core_of_the_chip_sends_is_seen():
    schedule = schedule_of("tpu7x-1x2x2")
    found = Counter(
        (step.kind, step.collective.opcode, axes_of(step.collective, TORI["tpu7x-1x2x2"]))
        for step in loop_of(schedule, 4)
        if step.collective
    )
    assert found[Kind.START, "all-gather", (Y, Z, CORES)] == 1
    assert found[Kind.START, "reduce-scatter", (Y, Z, CORES)] == 1


def test_looped_collectives_are_asynchronous_permutes_that_overlap():
    name = "v4-4x4x4-oneway"
    steps = loop_of(schedule_of(name), 4)
    sent = [step for step in steps if step.collective and step.collective.opcode == "collective-permute"]
    assert all(step.kind is Kind.START for step in sent)
    # Rings of 16 and of 4, one for each of the two products: n − 1 sends each.
    assert len(sent) == 2 * 15 + 2 * 3
    assert walk(schedule_of(name), machine_of(name)).account.overlapped_s > 0


@pytest.mark.parametrize("name", TORI)
def test_the_account_adds_up(name):
    account = walk(schedule_of(name), machine_of(name)).account
    assert account.total_s == pytest.approx(account.compute_s + account.exposed_s + account.copy_wait_s)
    assert account.communication_s == pytest.approx(account.overlapped_s + account.exposed_s, rel=0.05)
    assert sum(account.by_kind.values()) == pytest.approx(account.compute_s + account.communication_s)


@pytest.mark.parametrize("name", TORI)
def test_a_trace_s_bars_never_overlap_and_add_up_to_the_account(name):
    timeline = walk(schedule_of(name), machine_of(name))
    account, trace = timeline.account, trace_events(timeline, name, 4)
    lanes = {each["tid"]: each["args"]["name"] for each in trace["traceEvents"] if each["name"] == "thread_name"}
    bars = [each for each in trace["traceEvents"] if each["ph"] == "X"]
    for lane in lanes:
        mine = [(round(1e3 * bar["ts"]), round(1e3 * (bar["ts"] + bar["dur"]))) for bar in bars if bar["tid"] == lane]
        assert mine == sorted(mine)
        assert all(before[1] <= after[0] for before, after in pairwise(mine))

    def seconds(lane, *kinds):
        mine = [bar for bar in bars if lanes[bar["tid"]].startswith(lane) and (not kinds or bar["cat"] in kinds)]
        return 1e-6 * sum(bar["dur"] * bar["args"]["turns"] for bar in mine)

    # A bar is rounded to nanoseconds, and stands for up to twelve turns.
    room = 1e-9 * sum(bar["args"]["turns"] for bar in bars)
    assert seconds("compute") == pytest.approx(account.total_s, abs=room)
    assert seconds("compute", "exposed") == pytest.approx(account.exposed_s, abs=room)
    assert seconds("compute", "copy wait") == pytest.approx(account.copy_wait_s, abs=room)
    sent = {(bar["name"], bar["ts"]): bar["dur"] * bar["args"]["turns"] for bar in bars if "latency_us" in bar["args"]}
    assert 1e-6 * sum(sent.values()) == pytest.approx(account.communication_s, abs=room)
    assert any(bar["cat"] == "matmul" for bar in bars)


@pytest.mark.parametrize("name", ["v4-2x2x2", "v5e-2x4", "v6e-2x4"])
def test_a_step_reads_its_weights_and_its_cache_once(name):
    # An eighth of the matrices of 4 layers (q of 16 heads, k, v, o, three of the feed-forward) and of the table.
    layer = 2048 * (2 * 16 * 256 + 2 * 256 + 3 * 8192)
    weights = 2 * (4 * layer + 256000 * 2048) / 8
    cache = 2 * 2 * 4 * (64 / 8) * 256 * 256
    read = walk(schedule_of(name), machine_of(name)).account.hbm_bytes / 3
    assert weights + cache < read < 1.5 * (weights + cache)


def test_a_program_that_is_cut_off_is_refused_anywhere():
    text = text_of("v5e-2x4")
    from engines.compiled.hlo.parser import UnreadableHlo

    for part in (0.1, 0.5, 0.9):
        with pytest.raises(UnreadableHlo):
            read_schedule(parse_module(text[: int(len(text) * part)]))
