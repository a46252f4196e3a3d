"""Scheduled HLO → typed steps → time, on a program small enough to time by hand."""

import pytest
from hand_schedule import MACHINE, MEGABYTE, PROGRAM, cycles

from engines.compiled.cost.timeline import walk
from engines.compiled.hlo.opcodes import FREE_CALLS
from engines.compiled.hlo.parser import UnreadableHlo, parse_instruction, parse_module
from engines.compiled.hlo.schedule import Kind, read_schedule


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
    lined = PROGRAM.replace(line, f'{line}, {metadata}, metadata={{op_name="kernel"}}')
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
    ("combined", "times"),
    [
        ("ROOT %new = f32[] parameter(1)", 1),
        ("%new = f32[] parameter(1)\n  ROOT %sum = f32[] add(%old, %new)", 2),
    ],
)
def test_a_scatter_moves_what_it_writes_and_not_what_it_writes_into(combined, times):
    text = f"""\
HloModule scatters, is_scheduled=true

%combine (old: f32[], new: f32[]) -> f32[] {{
  %old = f32[] parameter(0)
  {combined}
}}

%written (cache: f32[4096,64], at: s32[8,1], rows: f32[8,64]) -> f32[4096,64] {{
  %cache = f32[4096,64]{{1,0}} parameter(0)
  %at = s32[8,1]{{1,0}} parameter(1)
  %rows = f32[8,64]{{1,0}} parameter(2)
  ROOT %in_place = f32[4096,64]{{1,0}} scatter(%cache, %at, %rows), update_window_dims={{1}}, to_apply=%combine
}}

ENTRY %main (x: f32[4096,64], i: s32[8,1], u: f32[8,64]) -> f32[4096,64] {{
  %x = f32[4096,64]{{1,0}} parameter(0)
  %i = s32[8,1]{{1,0}} parameter(1)
  %u = f32[8,64]{{1,0}} parameter(2)
  ROOT %result = f32[4096,64]{{1,0}} fusion(%x, %i, %u), kind=kInput, calls=%written
}}
"""
    (step,) = (each for each in read_schedule(parse_module(text)).computations["main"] if each.opcode == "fusion")
    indices, update = 8 * 4, 8 * 64 * 4
    assert step.hbm_bytes == indices + update + times * update
