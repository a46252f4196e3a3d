"""What the stream and the copies move shares HBM: timed by hand, and the law that no program beats its bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_stored_schedules import TORI, machine_of, schedule_of

from engines.compiled.cost.copies import CopyQueue
from engines.compiled.cost.timeline import walk
from engines.compiled.cost.torus import Torus
from engines.compiled.cost.tpu import TpuCostModel
from engines.compiled.hlo.parser import parse_module
from engines.compiled.hlo.schedule import read_schedule
from engines.core.chip import LinkConstants

LINKS = LinkConstants(link_efficiency=1.0, hop_s=1e-6, launch_s=0.0)
TORUS = Torus(shape=(1, 1, 1), wrap=(False,) * 3, link_bytes_per_s=1e9)
MACHINE = TpuCostModel(clock_hz=1e9, hbm_bytes_per_s=1e12, torus=TORUS, links=LINKS, fixed_cycles=1000)
MB = 10**6


def program(*lines):
    body = "\n".join(f"  {line}" for line in lines)
    return f"""HloModule m, is_scheduled=true

%work (p: s8[{MB}]) -> s8[{MB}] {{
  %p = s8[{MB}]{{0}} parameter(0)
  ROOT %n = s8[{MB}]{{0}} negate(%p)
}}

ENTRY %main (a: s8[{MB}], w: s8[{4 * MB}]) -> s8[{MB}] {{
  %a = s8[{MB}]{{0:S(1)}} parameter(0)
  %h = s8[{MB}]{{0}} parameter(1)
  %w = s8[{4 * MB}]{{0}} parameter(2)
{body}
}}
"""


def fetch(name="fetch"):
    return f"%{name} = (s8[{4 * MB}]{{0:S(1)}}, s8[{4 * MB}]{{0}}, u32[]) copy-start(%w)"


def fusion(name, operand, space, cycles):
    layout = "{0:S(1)}" if space else "{0}"
    note = f'backend_config={{"window_config":{{"estimated_cycles":"{cycles}"}}}}'
    return f"%{name} = s8[{MB}]{layout} fusion(%{operand}), kind=kLoop, calls=%work, {note}"


def account_of(*lines, machine=MACHINE):
    return walk(read_schedule(parse_module(program(*lines))), machine).account


DONE = f"ROOT %got = s8[{4 * MB}]{{0:S(1)}} copy-done(%fetch)"


def test_the_fixed_cycles_are_not_charged():
    assert account_of("ROOT " + fusion("f", "a", 1, 3000)).total_s == pytest.approx(2e-6)


def test_what_the_scalar_core_does_has_no_fixed_cycles():
    assert account_of("ROOT " + fusion("f", "a", 1, 300)).total_s == pytest.approx(0.3e-6)


def test_no_instruction_is_faster_than_its_bytes():
    # 1 MB read and 1 MB written at 1 TB/s, however few cycles the compiler estimates.
    assert account_of("ROOT " + fusion("f", "h", 0, 1500)).total_s == pytest.approx(2e-6)


def test_a_copy_beside_work_on_the_chip_has_hbm_for_itself():
    account = account_of(fetch(), fusion("f", "a", 1, 4000), DONE)  # 3 µs of work, 4 MB to fetch
    assert account.total_s == pytest.approx(4e-6)
    assert account.copy_wait_s == pytest.approx(1e-6)


def test_a_copy_beside_work_in_hbm_gets_the_rest_of_the_bandwidth():
    account = account_of(fetch(), fusion("f", "h", 0, 4000), DONE)  # 2 of the work's 3 µs are HBM's
    assert account.total_s == pytest.approx(6e-6)
    assert account.memory_s == pytest.approx(6e-6)


def test_a_copy_that_ends_within_the_work_costs_nothing():
    account = account_of(fetch(), fusion("f", "h", 0, 13000), DONE)  # 10 of 12 µs are left to the copy
    assert account.total_s == pytest.approx(12e-6)
    assert account.copy_wait_s == pytest.approx(0)


@given(
    copies=st.lists(st.floats(1e-6, 1e-3), min_size=1, max_size=6),
    stream=st.lists(st.tuples(st.floats(0, 1e-3), st.floats(0, 1)), max_size=8),
)
def test_copies_take_all_of_hbm_that_the_stream_leaves(copies, stream):
    queue, now, taken = CopyQueue(), 0.0, 0.0
    for number, seconds in enumerate(copies):
        queue.issue(str(number), 0.0, seconds)
    for seconds, part in stream:
        queue.share(now, seconds, seconds * part)
        now, taken = now + seconds, taken + seconds * part
    ends = [queue.pop(str(number)).end_s for number in range(len(copies))]
    assert ends == sorted(ends)
    assert ends[-1] >= sum(copies) * (1 - 1e-9)
    if ends[-1] > now * (1 + 1e-9):  # never idle: HBM has served all of both
        assert ends[-1] == pytest.approx(sum(copies) + taken)
    else:
        assert now >= sum(copies) * (1 - 1e-9)


@pytest.mark.parametrize("name", TORI)
def test_no_program_is_faster_than_its_bytes(name):
    account = walk(schedule_of(name), machine_of(name)).account
    assert account.total_s >= account.memory_s * (1 - 1e-9)
