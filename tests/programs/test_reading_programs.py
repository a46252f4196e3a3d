"""Programs of others, read from small texts: lines of source, what is open or only bounded, what is fetched in vain."""

import math

import pytest
from builders import hlo_texts
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.sweep.catalog import load_chip
from engines.compiled.compile.cache import CompiledProgram
from engines.compiled.cost.parts import passes
from engines.compiled.hlo.collective import Collective
from engines.compiled.hlo.schedule import Trips
from engines.compiled.program.difference import compare
from engines.compiled.program.estimate import Settings, estimate_compiled
from engines.compiled.program.placement import Placement, in_order
from engines.core.errors import InvalidRequest
from engines.core.slice import slice_of

V5E = load_chip("tpu-v5e")
CLOCK = V5E.clock_hz
FIXED = V5E.xla.fixed_cycles


def estimated(text, devices=1, axes=None, trips=None):
    slice_ = slice_of(V5E, devices)
    placement = in_order(axes, devices)
    compiled = CompiledProgram(text=text, memory={}, compile_s=0.0)
    return estimate_compiled("step", compiled, slice_, placement, Settings(unknown_trips=trips), "key", {})


def test_every_second_belongs_to_a_line_of_source():
    found = estimated(hlo_texts.gathers("x", "moved"), 4, {"model": 4})
    assert sum(line.seconds for line in found.hot_spots) == pytest.approx(found.step_time_s)
    assert {line.source.place for line in found.hot_spots} == {"/home/user/model.py:12", "/home/user/model.py:30"}
    assert found.hot_spots[0].source.function in ("layer", "step")


def test_a_line_of_the_older_notation():
    text = hlo_texts.gathers("x").replace("stack_frame_id=1}", 'source_file="/home/user/old.py" source_line=7}')
    assert {line.source.place for line in estimated(text, 4, {"model": 4}).hot_spots} == {"/home/user/old.py:7"}


def test_a_value_gathered_twice_is_told_with_both_lines():
    found = estimated(hlo_texts.gathers("x", "moved"), 4, {"model": 4})
    (again,) = found.repeated
    assert again.runs == (1, 1)
    told = found.explain()
    assert "all-gather of the same operand" in told
    assert "is done twice, at /home/user/model.py:12 and /home/user/model.py:30" in told


def test_two_values_gathered_once_each_are_no_repetition():
    assert estimated(hlo_texts.gathers("x", "y"), 4, {"model": 4}).repeated == []


@given(turns=st.integers(2, 100), changes=st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_gather_in_a_loop_repeats_where_the_loop_does_not_change_its_operand(turns, changes):
    found = estimated(hlo_texts.loop_that_gathers(turns, changes=changes), 4, {"model": 4})
    assert [again.runs for again in found.repeated] == ([] if changes else [(turns,)])
    (gathered,) = found.collectives
    assert gathered.count == turns
    assert gathered.axes == ("model",)
    assert gathered.bytes == turns * 4096 * 1024 * 2


def test_a_collective_split_into_fusions_is_sent_once_beside_the_matmul():
    found = estimated(hlo_texts.async_collective_fusion(), 4, {"model": 4})
    alone = estimated(hlo_texts.gathers("x"), 4, {"model": 4}).collectives[0].seconds
    (gathered,) = found.collectives
    matmul = (150000 - FIXED) / CLOCK
    assert gathered.count == 1
    assert gathered.bytes == 4096 * 1024 * 2
    assert gathered.seconds == pytest.approx(alone)
    assert found.step_time_s == pytest.approx(max(matmul, alone))
    assert found.repeated == []


def test_a_loop_of_unknown_turns_is_asked_for():
    with pytest.raises(
        InvalidRequest, match=r"trip_count=null: is needed: how often the loop at /home/user/model.py:30 turns"
    ):
        estimated(hlo_texts.loop_of_unknown_turns())


@given(least=st.integers(0, 50), more=st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_a_range_of_turns_is_a_range_of_time(least, more):
    found = estimated(hlo_texts.loop_of_unknown_turns(), trips=Trips(least, least + more))
    turn = (15000 - FIXED) / CLOCK
    assert found.interval_s == pytest.approx((least * turn, (least + more) * turn))
    assert found.step_time_s == found.interval_s[1]
    assert "was given" in found.explain()


def test_the_longest_branch_counts_and_each_is_told():
    found = estimated(hlo_texts.conditional(15000, 60000))
    (branch,) = found.branches
    times = tuple((count - FIXED) / CLOCK for count in (15000, 60000))
    assert branch.seconds == pytest.approx(times)
    assert found.interval_s == pytest.approx(times)
    assert "as the branch runs; the longest counts" in found.explain()


def test_a_kernel_takes_what_its_author_states_at_the_roofline():
    found = estimated(hlo_texts.kernel())
    assert found.step_time_s == pytest.approx(1e-3)  # 197e9 operations at 197e12 a second
    assert found.interval_s[0] == pytest.approx(1e-3)
    assert "custom-call tpu_custom_call" in found.explain()


def test_a_kernel_that_states_nothing_takes_between_nothing_and_its_bytes():
    found = estimated(hlo_texts.kernel(stated=False))
    assert found.step_time_s == pytest.approx(2 * 1024 * 1024 * 2 / 819e9)
    assert found.interval_s[0] == 0
    assert found.timed.unknown == {"custom-call tpu_custom_call": 1}


def test_two_programs_are_compared_by_what_and_by_function():
    one, two = (estimated(hlo_texts.gathers(*names), 4, {"model": 4}) for names in (("x",), ("x", "moved")))
    found = compare(one, two)
    assert found.seconds == pytest.approx(sum(moved.seconds for moved in found.by_what.values()))
    assert found.seconds == pytest.approx(sum(moved.seconds for moved in found.by_function.values()))
    assert found.instructions == {"all-gather": 1}
    assert "all-gather along model: 1 of 8.39 MB" in found.explain()
    assert "the same program" in compare(one, one).explain()


def test_bars_name_their_instruction_and_line(tmp_path):
    import gzip
    import json

    path = estimated(hlo_texts.gathers("x"), 4, {"model": 4}).trace(tmp_path / "step.json.gz")
    bars = [each for each in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"] if each["ph"] == "X"]
    assert bars
    assert all(bar["args"]["hlo"] and bar["args"]["source"].startswith("/home/user/model.py:") for bar in bars)


def collective(opcode="all-gather", size=8192.0):
    return Collective(
        opcode=opcode, whole_bytes=size, shard_bytes=1.0, groups="", pairs="", emitter="", strategy="", colors=None
    )


HALVES = [[0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15]]


def test_a_part_of_an_axis_rings_on_its_own_links():
    # Halves of a 4×4 mesh, 4 by 2 each: S·7/8 over one link of x and one of y; 3 + 1 steps.
    passed, steps, links = passes(collective(), HALVES, (4, 4), (False, False))
    assert passed == 8192 * 7 / 8 / 2
    assert steps == 4
    assert len(links) == 4


def test_interleaved_groups_share_their_links():
    # Even and odd columns: neighbours are two hops apart, and the middle link of a row carries both groups.
    groups = [[0, 2], [1, 3]]
    passed, steps, _ = passes(collective(), groups, (1, 4), (False, False))
    assert passed == 8192 * 1 / 2 * 2
    assert steps == 2


@given(st.permutations(range(16)), st.sampled_from(["all-gather", "all-reduce", "all-to-all", "reduce-scatter"]))
@settings(max_examples=50, deadline=None)
def test_any_groups_take_at_least_what_their_own_links_allow(order, opcode):
    groups = [list(order[:8]), list(order[8:])]
    passed, steps, _ = passes(collective(opcode), groups, (4, 4), (True, True))
    rounds = 2 if opcode == "all-reduce" else 1
    assert passed >= rounds * 8192 * 7 / 8 / 4 * (1 if opcode != "all-to-all" else 1 / 4)
    assert steps >= 1
    assert math.isfinite(passed)


def test_groups_number_partitions_and_not_places():
    text = hlo_texts.gathers("x").replace("replica_groups={{0,1,2,3}}", "replica_groups={{0,1},{2,3}}")
    slice_ = slice_of(V5E, 4)
    compiled = CompiledProgram(text=text, memory={}, compile_s=0.0)

    def time_of(places):
        placement = Placement(axes={"a": 2, "b": 2}, places=places)
        return estimate_compiled("step", compiled, slice_, placement, Settings(), "key", {}).step_time_s

    # Partitions 0 and 1 are neighbours in both; across the diagonal a send takes two hops over shared links.
    assert time_of((0, 1, 2, 3)) == pytest.approx(time_of((0, 2, 1, 3)))
    assert time_of((0, 3, 1, 2)) > time_of((0, 1, 2, 3))


def test_a_sort_takes_at_least_one_pass_over_its_values():
    text = """\
HloModule sorts, is_scheduled=true

%less (a: f32[], b: f32[]) -> pred[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %is = pred[] compare(%a, %b), direction=LT
}

ENTRY %main (x: f32[262144]) -> f32[262144] {
  %x = f32[262144]{0} parameter(0)
  ROOT %sorted = f32[262144]{0} sort(%x), dimensions={0}, to_apply=%less
}
"""
    found = estimated(text)
    assert found.step_time_s == found.account.at_least_s == pytest.approx(2 * 4 * 262144 / V5E.hbm_bytes_per_s)
    assert "the least that kernels, sorts" in found.explain()
