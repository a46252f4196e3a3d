"""A timeline as a trace that Perfetto draws."""

import json

import pytest
from hand_schedule import MACHINE, MEGABYTE, PROGRAM

from engines.compiled.cost.account import Account
from engines.compiled.cost.bars import Event
from engines.compiled.cost.timeline import Timeline, walk
from engines.compiled.hlo.parser import parse_module
from engines.compiled.hlo.schedule import read_schedule
from engines.compiled.perfetto import trace_events, write_trace


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
