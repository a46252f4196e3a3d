"""Scheduled HLO → typed steps → time, on a program small enough to time by hand."""

import json

import pytest

from engines.compiled.cost.account import Account
from engines.compiled.cost.timeline import Event, Timeline, walk
from engines.compiled.cost.torus import Torus, collective_time
from engines.compiled.cost.tpu import TpuCostModel
from engines.compiled.hlo.collective import Collective
from engines.compiled.hlo.opcodes import FREE_CALLS
from engines.compiled.hlo.parser import UnreadableHlo, parse_instruction, parse_module
from engines.compiled.hlo.replica_groups import Hop, group_axes, parse_groups, parse_pairs, permute_hops
from engines.compiled.hlo.schedule import Kind, read_schedule
from engines.compiled.perfetto import trace_events, write_trace
from engines.core.chip import LinkConstants


def cycles(count):
    return f'backend_config={{"window_config":{{"estimated_cycles":"{count}"}}}}'


RING = "{{0,1},{1,2},{2,3},{3,0}}"
# A loop of five turns: each sends 1 MB one hop along z while a fusion of 1000 cycles runs, then 3000 cycles more.
PROGRAM = f"""\
HloModule jit_step, is_scheduled=true, entry_computation_layout={{(f32[262144])->f32[262144]}}, num_partitions=4

%work (p0: f32[262144]) -> f32[262144] {{
  %p0 = f32[262144]{{0}} parameter(0)
  ROOT %neg = f32[262144]{{0}} negate(%p0)
}}

%cond (c: (s32[], f32[262144])) -> pred[] {{
  %c = (s32[], f32[262144]{{0}}) parameter(0)
  %limit = s32[] constant(5)
  %at = s32[] get-tuple-element(%c), index=0
  ROOT %less = pred[] compare(%at, %limit), direction=LT
}}

%body (b: (s32[], f32[262144])) -> (s32[], f32[262144]) {{
  %b = (s32[], f32[262144]{{0}}) parameter(0)
  %i = s32[] get-tuple-element(%b), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %x = f32[262144]{{0}} get-tuple-element(%b), index=1
  %send = (f32[262144]{{0}}, f32[262144]{{0}}, u32[], u32[]) collective-permute-start(%x), source_target_pairs={RING}
  %beside = f32[262144]{{0}} fusion(%x), kind=kLoop, calls=%work, {cycles(1000)}
  %got = f32[262144]{{0}} collective-permute-done(%send)
  %after = f32[262144]{{0}} fusion(%got), kind=kLoop, calls=%work, {cycles(3000)}
  ROOT %out = (s32[], f32[262144]{{0}}) tuple(%next, %after)
}}

ENTRY %main (arg: f32[262144]) -> f32[262144] {{
  %arg = f32[262144]{{0}} parameter(0)
  %zero = s32[] constant(0)
  %state = (s32[], f32[262144]{{0}}) tuple(%zero, %arg)
  %loop = (s32[], f32[262144]{{0}}) while(%state), condition=%cond, body=%body
  ROOT %result = f32[262144]{{0}} get-tuple-element(%loop), index=1
}}
"""
TORUS = Torus(shape=(1, 1, 4), wrap=(False, False, True), link_bytes_per_s=50e9)
LINKS = LinkConstants(link_efficiency=0.8, hop_s=1e-6, launch_s=0.0)
MACHINE = TpuCostModel(clock_hz=1e9, hbm_bytes_per_s=1e13, torus=TORUS, links=LINKS)
MEGABYTE = 4 * 262144


def test_a_loop_with_an_overlapped_send_timed_by_hand():
    account = walk(read_schedule(parse_module(PROGRAM)), MACHINE).account
    send_s = 1e-6 + MEGABYTE / (0.8 * 50e9)
    assert account.communication_s == pytest.approx(5 * send_s)
    assert account.overlapped_s == pytest.approx(5 * 1e-6)  # the 1000 cycles that stand between start and done
    assert account.exposed_s == pytest.approx(5 * (send_s - 1e-6))
    # 4000 cycles of fusions a turn; scalars cost next to nothing.
    assert account.compute_s == pytest.approx(5 * 4e-6, rel=0.01)
    assert account.total_s == pytest.approx(account.compute_s + account.exposed_s + account.copy_wait_s)


@pytest.mark.parametrize("opcode", ["async-update", "call-update", "collective-permute-update"])
def test_an_update_between_start_and_done_costs_nothing_and_waits_for_nothing(opcode):
    send = next(line for line in PROGRAM.splitlines() if "%send = " in line)
    shape = send.partition("= ")[2].partition(" collective")[0]
    updated = PROGRAM.replace(send, f"{send}\n  %passed = {shape} {opcode}(%send)").replace(
        "-done(%send)", "-done(%passed)"
    )
    assert updated.count("%passed") == 2
    schedule = read_schedule(parse_module(updated))
    assert not schedule.unknown
    assert walk(schedule, MACHINE).account == walk(read_schedule(parse_module(PROGRAM)), MACHINE).account


def test_a_sum_that_takes_longer_hides_the_send_whole():
    slow = PROGRAM.replace('"1000"', '"90000"')
    account = walk(read_schedule(parse_module(slow)), MACHINE).account
    assert account.exposed_s == pytest.approx(0)
    assert account.overlapped_s == pytest.approx(account.communication_s)


def test_steps_are_typed_and_the_trip_count_read():
    schedule = read_schedule(parse_module(PROGRAM))
    kinds = {step.name: step.kind for steps in schedule.computations.values() for step in steps}
    assert kinds["loop"] is Kind.LOOP
    assert kinds["send"] is Kind.START
    assert kinds["got"] is Kind.DONE
    assert kinds["beside"] is Kind.COMPUTE
    (loop,) = [step for step in schedule.computations["main"] if step.name == "loop"]
    assert loop.trips == 5
    assert not schedule.unknown


@pytest.mark.parametrize(
    ("call", "label"),
    [
        ("quantum-sort(%got)", "quantum-sort"),
        ('custom-call(%got), custom_call_target="somebody$else"', "custom-call somebody$else"),
    ],
)
def test_what_is_not_known_is_named_and_bounded_by_its_bytes(call, label):
    line = f"fusion(%got), kind=kLoop, calls=%work, {cycles(3000)}"
    known = walk(read_schedule(parse_module(PROGRAM)), MACHINE).account
    schedule = read_schedule(parse_module(PROGRAM.replace(line, call)))
    account = walk(schedule, MACHINE).account
    moved_s = 2 * MEGABYTE / MACHINE.hbm_bytes_per_s  # read and written once a turn
    assert schedule.unknown == {label: 1}
    assert account.unestimated[label] == 5
    assert account.unestimated_by_label_s[label] == pytest.approx(5 * moved_s)
    assert account.unknown_s == pytest.approx(5 * moved_s)
    assert account.total_s == pytest.approx(known.total_s + 5 * (moved_s - 3000 / 1e9))


def test_what_the_compiler_estimates_is_known_by_its_cycles():
    called = PROGRAM.replace("fusion(%got), kind=kLoop, calls=%work", 'custom-call(%got), custom_call_target="kernel"')
    schedule = read_schedule(parse_module(called))
    assert not schedule.unknown
    assert (
        walk(schedule, MACHINE).account.total_s == walk(read_schedule(parse_module(PROGRAM)), MACHINE).account.total_s
    )


def test_a_kernel_s_metadata_may_take_lines_of_their_own():
    line = f"fusion(%got), kind=kLoop, calls=%work, {cycles(3000)}"
    metadata = 'frontend_attributes={kernel_metadata={\n"xprof_metadata":"{\\"block_q\\": 128}"\n}}'
    lined = PROGRAM.replace(line, f"{line}, {metadata}, metadata={{op_name=\"kernel\"}}")
    assert lined.count("\n") == PROGRAM.count("\n") + 2
    assert walk(read_schedule(parse_module(lined)), MACHINE) == walk(read_schedule(parse_module(PROGRAM)), MACHINE)
    with pytest.raises(UnreadableHlo, match="before body ends"):
        parse_module(lined.replace("frontend_attributes={", "frontend_attributes={{"))


@pytest.mark.parametrize("target", FREE_CALLS)
def test_bookkeeping_takes_no_time_and_moves_nothing(target):
    line = "fusion(%got), kind=kLoop"
    joined = f'%joined = f32[262144]{{0}} custom-call(%got), custom_call_target="{target}"'
    program = PROGRAM.replace("  %after", f"  {joined}\n  %after").replace(line, line.replace("%got", "%joined"))
    assert program.count("%joined") == 2
    assert walk(read_schedule(parse_module(program)), MACHINE) == walk(read_schedule(parse_module(PROGRAM)), MACHINE)


def test_an_update_on_the_chip_costs_the_update_alone():
    cache, update = "f32[1024,1024]{1,0:S(1)}", "f32[8,1024]{1,0:S(1)}"
    program = f"""HloModule m, is_scheduled=true

ENTRY %main (cache: f32[1024,1024], update: f32[8,1024]) -> f32[1024,1024] {{
  %cache = {cache} parameter(0)
  %update = {update} parameter(1)
  %zero = s32[] constant(0)
  ROOT %new = {cache} dynamic-update-slice(%cache, %update, %zero, %zero)
}}
"""
    (step,) = [each for each in read_schedule(parse_module(program)).computations["main"] if each.kind is Kind.COMPUTE]
    assert step.hbm_bytes <= 2 * 4  # the places, which are scalars
    assert step.moved_bytes == pytest.approx(2 * 8 * 1024 * 4, rel=1e-3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not begin with HloModule"),
        ("ELF", "does not begin with HloModule"),
        (PROGRAM.replace("is_scheduled=true, ", ""), "is_scheduled"),
        (PROGRAM[: PROGRAM.index("  ROOT %result")], "ends before"),
        (PROGRAM.replace("%next = s32[] add(%i, %one)", "next is i plus one"), "line 19"),
    ],
)
def test_what_is_no_schedule_is_refused(text, words):
    with pytest.raises(UnreadableHlo, match=words):
        parse_module(text)


def test_an_instruction_in_parts():
    line = (
        "ROOT %f.1 = (bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, s8[4]{0}) fusion(%a, /*index=1*/%b), kind=kOutput, "
        'calls=%c, metadata={op_name="x, y"}, backend_config={"estimated_cycles":"77"}'
    )
    read = parse_instruction(line)
    assert (read.name, read.opcode, read.operands, read.is_root) == ("f.1", "fusion", ("a", "b"), True)
    assert [(shape.dtype, shape.dims, shape.space) for shape in read.shapes] == [("bf16", (8, 128), 1), ("s8", (4,), 0)]
    assert read.bytes == 2 * 8 * 128 + 4
    assert read.attributes["calls"] == "%c"


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("{{0,1},{2,3}}", [[0, 1], [2, 3]]),
        ("[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("{}", [[0, 1, 2, 3]]),
        ("mesh['a'=2,'b'=2] {'b'}", [[0, 1], [2, 3]]),
        ("mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}", [[0, 2], [1, 3]]),
        ("mesh['a'=1,'b'=4], device_ids=([4]) {'b':(1)2}", [[0, 2], [1, 3]]),
        ("mesh['a'=1,'b'=4] {'b':(2)2}", [[0, 1], [2, 3]]),
    ],
)
def test_replica_groups_in_every_form(text, groups):
    assert parse_groups(text, 4) == groups


def test_groups_are_told_as_torus_axes():
    shape = (2, 2, 2)
    assert group_axes([[0, 1], [2, 3], [4, 5], [6, 7]], shape) == (2,)
    assert group_axes([[0, 4], [1, 5], [2, 6], [3, 7]], shape) == (0,)
    assert group_axes([[0, 1, 2, 3], [4, 5, 6, 7]], shape) == (1, 2)
    assert group_axes([[0, 3], [1, 2], [4, 7], [5, 6]], shape) is None


def test_a_permute_loads_the_links_it_crosses():
    ring = parse_pairs(RING)
    assert permute_hops(ring, (1, 1, 4), (False, False, True)) == ({Hop(2, 1): 1}, 1)
    # Without the wrap-around the last send goes back over three links.
    assert permute_hops(ring, (1, 1, 4), (False, False, False)) == ({Hop(2, 1): 1, Hop(2, -1): 1}, 3)


def ring(opcode, **changes):
    content = {
        "opcode": opcode, "whole_bytes": 8e6, "shard_bytes": 2e6, "groups": "{{0,1,2,3}}", "pairs": "",
        "emitter": "", "strategy": "", "colors": None,
    }  # fmt: skip
    return Collective(**{**content, **changes})


def test_ring_collectives_by_hand():
    # 6 of 8 MB pass, over two links of 40 GB/s of payload, in three hops.
    assert collective_time(ring("all-gather"), TORUS, LINKS).seconds == pytest.approx(6e6 / 80e9 + 3e-6)
    assert collective_time(ring("all-reduce"), TORUS, LINKS).seconds == pytest.approx(2 * (6e6 / 80e9 + 3e-6))
    open_torus = Torus(shape=(1, 1, 4), wrap=(False, False, False), link_bytes_per_s=50e9)
    assert collective_time(ring("all-gather"), open_torus, LINKS).seconds == pytest.approx(6e6 / 40e9 + 3e-6)


def bars_of(trace):
    """Bars by the label of their lane."""
    lanes = {each["tid"]: each["args"]["name"] for each in trace["traceEvents"] if each["name"] == "thread_name"}
    bars = {label: [] for label in lanes.values()}
    for each in trace["traceEvents"]:
        if each["ph"] == "X":
            bars[lanes[each["tid"]]].append(each)
    return bars


def test_the_trace_of_a_turn_by_hand():
    trace = trace_events(walk(read_schedule(parse_module(PROGRAM)), MACHINE), "by hand", 5)
    assert json.loads(json.dumps(trace)) == trace
    assert trace["otherData"]["layers"] == 5
    bars = bars_of(trace)
    assert list(bars) == ["compute", "link z +"]
    (sent,) = bars["link z +"]
    assert (sent["cat"], sent["args"]) == (
        "collective-permute",
        {"kind": "collective", "loop": 1, "turns": 5, "bytes": MEGABYTE, "latency_us": 1.0, "bound": "link"},
    )
    send_us = 1 + MEGABYTE / 40e3
    assert sent["dur"] == pytest.approx(send_us, abs=1e-3)
    # Scalars of the loop itself run on.
    fusions = {bar["name"]: bar for bar in bars["compute"] if bar["cat"] != "negate"}
    assert [(name, bar["cat"], bar["args"]["turns"]) for name, bar in fusions.items()] == [
        ("beside", "fusion", 5),
        ("send", "exposed", 5),
        ("after", "fusion", 5),
        ("4 more turns of loop", "turns", 0),
    ]
    assert fusions["send"]["dur"] == pytest.approx(send_us - 1, abs=2e-3)
    assert fusions["4 more turns of loop"]["dur"] == pytest.approx(4 * (send_us + 3), abs=0.1)


def test_what_multiplies_matrices_is_told_apart_even_inside_a_fusion_of_a_fusion():
    deep = PROGRAM.replace(
        "%work (p0",
        """%product (a: f32[262144]) -> f32[262144] {
  %a = f32[262144]{0} parameter(0)
  ROOT %times = f32[262144]{0} convolution(%a, %a), dim_labels=bf_io->bf
}

%outer (o: f32[262144]) -> f32[262144] {
  %o = f32[262144]{0} parameter(0)
  ROOT %deep = f32[262144]{0} fusion(%o), kind=kOutput, calls=%product
}

%work (p0""",
    ).replace("fusion(%got), kind=kLoop, calls=%work", "fusion(%got), kind=kOutput, calls=%outer")
    bars = bars_of(trace_events(walk(read_schedule(parse_module(deep)), MACHINE), "by hand", 5))["compute"]
    assert {bar["name"]: bar["cat"] for bar in bars if bar["name"] in ("beside", "after")} == {
        "beside": "fusion",
        "after": "matmul",
    }


def test_bars_that_overlap_get_lanes_of_their_own_and_neighbours_only_touch():
    def bar(name, start_s, seconds):
        return Event("x +", name, start_s, seconds, "all-gather")

    third = 1e-6 / 3
    events = [
        bar("long", 0.0, 1e-6),
        bar("inner", third, third),
        bar("next", 2 * third, third),
        bar("last", 1e-6, 1e-6),
    ]
    bars = bars_of(trace_events(Timeline(Account(), events), "by hand", 1))
    assert [each["name"] for each in bars["link x +"]] == ["long", "last"]
    assert [each["name"] for each in bars["link x + (2)"]] == ["inner", "next"]
    inner, following = bars["link x + (2)"]
    assert round(1e3 * (inner["ts"] + inner["dur"])) == round(1e3 * following["ts"])


def test_the_same_timeline_gives_the_same_file(tmp_path, monkeypatch):
    timeline = walk(read_schedule(parse_module(PROGRAM)), MACHINE)
    first = write_trace(str(tmp_path / "a"), "step", timeline, 5, hlo=PROGRAM)
    monkeypatch.setattr("time.time", lambda: 4e9)
    second = write_trace(str(tmp_path / "b"), "step", timeline, 5, hlo=PROGRAM)
    assert first.read_bytes() == second.read_bytes()
    assert (tmp_path / "a/step.hlo.txt.gz").read_bytes() == (tmp_path / "b/step.hlo.txt.gz").read_bytes()
