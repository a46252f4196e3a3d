"""Conditionals of which is known how often each way is taken: the mean of both, with what is drawn left as it is."""

import pytest
from builders.points import point

from engines.compiled.compile.cache import CompiledProgram
from engines.compiled.cost.select import cost_model_of
from engines.compiled.cost.timeline import walk
from engines.compiled.hlo.parser import parse_module
from engines.compiled.hlo.schedule import read_schedule
from engines.compiled.timed import timed

SMALL, LARGE = "f32[1024,1024]{1,0:T(8,128)}", "f32[4096,1024]{1,0:T(8,128)}"
WAYS = (
    "true_computation=%passes, false_computation=%caches, "
    'metadata={op_name="jit(decode)/while/body/before_an_exit/cond"}'
)
PROGRAM = f"""HloModule two_ways, is_scheduled=true

%passes (p: (f32[1024,1024], f32[4096,1024])) -> f32[1024,1024] {{
  %p = ({SMALL}, {LARGE}) parameter(0)
  %all = {LARGE} get-tuple-element(%p), index=1
  %moved = {LARGE} copy(%all)
  %one = {SMALL} get-tuple-element(%p), index=0
  ROOT %kept = {SMALL} copy(%one)
}}

%caches (q: (f32[1024,1024], f32[4096,1024])) -> f32[1024,1024] {{
  %q = ({SMALL}, {LARGE}) parameter(0)
  %first = {SMALL} get-tuple-element(%q), index=0
  ROOT %same = {SMALL} copy(%first)
}}

ENTRY %main (a: f32[1024,1024], b: f32[4096,1024], c: pred[]) -> f32[1024,1024] {{
  %a = {SMALL} parameter(0)
  %b = {LARGE} parameter(1)
  %c = pred[] parameter(2)
  %both = ({SMALL}, {LARGE}) tuple(%a, %b)
  ROOT %way = {SMALL} conditional(%c, %both, %both), {WAYS}
}}
"""


@pytest.fixture
def cost():
    return cost_model_of(point("tiny", "tpu-v5e", engine="compiled", **SIZES).slice())


SIZES = {"phase": "decode", "num_chips": 1, "batch_size": 1, "input_len": 1, "output_len": 1}
MIB = 4 * 1024 * 1024 * 2 / 819e9
"""Seconds in which the small array is read and written."""


@pytest.mark.parametrize(("share", "times"), [(1.0, 5.0), (0.25, 2.0), (0.0, 1.0)])
def test_a_share_weighs_the_longest_way_and_leaves_nothing_open(cost, share, times):
    schedule = read_schedule(parse_module(PROGRAM))
    found = walk(schedule, cost, shares={"before_an_exit": share})
    assert found.account.total_s == pytest.approx(times * MIB, rel=0.01)
    assert found.account.hbm_bytes == pytest.approx(times * 8 * 1024 * 1024)
    assert not found.branches
    assert walk(schedule, cost, least=True, shares={"before_an_exit": share}).account == found.account


def test_other_conditionals_stay_open_and_a_part_of_a_name_is_no_name(cost):
    schedule = read_schedule(parse_module(PROGRAM))
    for shares in ({}, {"an_exit": 0.5}, {"after": 0.5}):
        found = walk(schedule, cost, shares=shares)
        assert found.account.total_s == pytest.approx(5 * MIB, rel=0.01)
        assert [each.name for each in found.branches] == ["way"]


def test_what_is_drawn_is_the_longest_way_and_what_is_accounted_the_mean(cost):
    program = timed(
        "decode", CompiledProgram(text=PROGRAM, memory={}, compile_s=0.0), cost, shares={"before_an_exit": 0.25}
    )
    assert program.account.total_s == pytest.approx(2 * MIB, rel=0.01)
    assert sum(each.seconds for each in program.timeline.events if each.lane == "compute") == pytest.approx(
        5 * MIB, rel=0.01
    )
    assert program.shortest is program.timeline
