"""Traces of compiled programs: one turn of the loop over layers, read, told and drawn."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
from builders.traces import by_hand
from matplotlib.colors import to_hex

from bench.report.render import style
from bench.report.studies.figure_iteration import COLOUR_OF, turn
from bench.report.studies.read_trace import read_turn
from bench.report.studies.traces import Places, traces_of
from engines.compiled.cost.account import Account
from engines.compiled.cost.bars import Event
from engines.compiled.cost.timeline import Timeline, walk
from engines.compiled.cost.torus import Torus
from engines.compiled.cost.tpu import TpuCostModel
from engines.compiled.hlo.parser import parse_module
from engines.compiled.hlo.schedule import read_schedule
from engines.compiled.perfetto import write_trace
from engines.core.chip import LinkConstants
from engines.core.errors import ShardbenchError
from engines.core.row import Row

STORED = Path(__file__).parents[1] / "compiled" / "data" / "v4-4x4x4-oneway.hlo.gz"


def file_of(timeline, folder, layers=4, name="step"):
    return write_trace(str(folder), name, timeline, layers)


def test_a_turn_by_hand(tmp_path):
    found = read_turn(file_of(by_hand(), tmp_path))
    assert (found.turns, found.loops) == (4, 2)
    assert (found.seconds, found.whole_s) == pytest.approx((100e-6, 810e-6))
    assert found.lanes == ["compute", "link x +", "link x -"]
    # The inner loop's matmul runs three times.
    assert dict(found.stream_s()) == pytest.approx({"matmul": 75e-6, "other": 9e-6, "exposed": 16e-6})
    # 60 MB in one of 60 µs, and none in three of 5.
    assert found.matmul_bytes_per_s() == pytest.approx(60e6 / 75e-6)
    assert dict(found.exposed_by_s()) == pytest.approx({"all-reduce": 15e-6, "collective-permute": 1e-6})
    assert found.hidden_permutes() == pytest.approx(14 / 15)


def test_no_name_in_a_trace_is_interpreted(tmp_path):
    timeline = by_hand()
    renamed = replace(
        timeline,
        events=[replace(event, name={"send": "a", "sum": "b"}.get(event.name, "c")) for event in timeline.events],
        loops=[replace(loop, name="d") for loop in timeline.loops],
    )
    first, second = (read_turn(file_of(each, tmp_path)) for each in (timeline, renamed))
    assert first.stream_s() == second.stream_s()
    assert first.exposed_by_s() == second.exposed_by_s()
    assert first.lanes == second.lanes


def test_the_loop_over_layers_is_told_from_the_others_by_its_count(tmp_path):
    # With two layers it is the steps' loop that fits best; one layer run apart changes nothing.
    assert read_turn(file_of(by_hand(), tmp_path, layers=5)).turns == 4
    assert read_turn(file_of(by_hand(), tmp_path, layers=2)).turns == 2


def test_a_program_without_loops_is_shown_whole(tmp_path):
    bars = [Event("compute", "all", 0.0, 2e-6, "matmul"), Event("copy", "in", 0.0, 1e-6, "copy-start")]
    found = read_turn(file_of(Timeline(Account(total_s=2e-6), bars), tmp_path))
    assert (found.turns, found.loops) == (1, 1)
    assert found.seconds == pytest.approx(2e-6)
    assert dict(found.stream_s()) == pytest.approx({"matmul": 2e-6})
    assert found.hidden_permutes() is None


def test_a_turn_of_what_the_compiler_wrote_adds_up(tmp_path):
    torus = Torus(shape=(4, 4, 4), wrap=(True, True, True), link_bytes_per_s=50e9)
    links = LinkConstants(link_efficiency=1.0, hop_s=1e-6, launch_s=0.0)
    machine = TpuCostModel(clock_hz=1e9, hbm_bytes_per_s=1e12, torus=torus, links=links)
    timeline = walk(read_schedule(parse_module(gzip.decompress(STORED.read_bytes()).decode())), machine)
    found = read_turn(file_of(timeline, tmp_path))
    assert (found.turns, found.loops) == (4, 3)
    assert sum(found.stream_s().values()) == pytest.approx(found.seconds, rel=1e-3)
    for loop in timeline.loops:
        parents = [each for each in timeline.loops if each.index == loop.parent]
        assert loop.runs == (parents[0].turns * parents[0].runs if parents else 1)
        stands = [event for event in timeline.events if event.repeats == loop.index]
        assert [event.seconds for event in stands] == pytest.approx([loop.turn_s * (loop.turns - 1)])
    assert 0.5 * found.whole_s < found.seconds * 12 < found.whole_s
    sent = [bar for bar in found.collectives().values() if bar.opcode == "collective-permute"]
    assert len(sent) == 2 * 15 + 2 * 3


def test_bars_are_drawn_where_they_are_and_coloured_by_what_they_are(tmp_path):
    found = read_turn(file_of(by_hand(), tmp_path))
    with style.settings():
        drawn = turn("trace", "caption", found)
    (axis,) = drawn.figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == found.lanes
    spans = {}
    for collection in axis.collections:
        for path in collection.get_paths():
            box = path.get_extents()
            lane = found.lanes[round((box.y0 + box.y1) / 2)]
            spans.setdefault((lane, to_hex(collection.get_facecolor()[0])), []).append((box.x0, box.x1))

    def drawn_at(lane, kind):
        return [pytest.approx(span, abs=2e-3) for span in spans.pop((lane, COLOUR_OF[kind].lower()))]

    assert drawn_at("compute", "matmuls") == [(0, 60), (70, 75)]
    assert drawn_at("compute", "other computation") == [(61, 70)]
    assert drawn_at("compute", "further turns of inner loops") == [(75, 85)]
    assert drawn_at("compute", "exposed communication") == [(60, 61), (85, 100)]
    assert drawn_at("link x +", "all-reduce") == [(85, 100)]
    assert drawn_at("link x -", "all-reduce") == [(85, 100)]
    assert drawn_at("link x -", "collective-permute") == [(46, 61)]
    assert not spans
    # 60 MB in 60 µs.
    assert [text.get_text() for text in axis.texts] == ["1,000 GB/s"]
    (legend,) = drawn.figure.legends
    assert "reduce-scatter" not in {text.get_text() for text in legend.get_texts()}


@pytest.mark.parametrize(
    "content",
    [b"", b"nothing", gzip.compress(b"[]", mtime=0), gzip.compress(b'{"traceEvents": []}', mtime=0)],
    ids=["empty", "words", "a list", "no slices"],  # not the bytes: they hold the time at which they were compressed
)
def test_what_is_no_trace_is_one_sentence(tmp_path, content):
    path = tmp_path / "broken.trace.json.gz"
    path.write_bytes(content)
    with pytest.raises(ShardbenchError, match="is not a trace of a compiled program"):
        read_turn(path)


def test_of_traces_that_differ_only_in_the_number_of_steps_the_first_is_drawn(tmp_path):
    path = file_of(by_hand(), tmp_path)
    rows = [
        a_row(path.name),
        a_row(path.name, input_len=1984, output_len=64),
        a_row(path.name, weight_dtype="bfloat16"),
    ]
    traces = traces_of(rows, Places(path.parent, tmp_path), "study-targets")
    with style.settings():
        drawn = [each.name for each in traces.draw()]
    assert drawn == ["trace_decode_b64_i2047_o1_ws_2d_plain_int8", "trace_decode_b64_i2047_o1_ws_2d_plain_bfloat16"]
    assert len(traces.table.rows) == 3


def test_a_trace_of_another_version_says_what_to_do(tmp_path):
    path = file_of(by_hand(), tmp_path)
    content = json.loads(gzip.decompress(path.read_bytes()))
    content["otherData"]["version"] = 1
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    with pytest.raises(ShardbenchError, match="has trace version 1, not 2; run its point again"):
        read_turn(path)


def a_row(name, **changes):
    content = {
        "point_id": "p", "created_at": "2026-01-02T03:04:05.006+00:00", "engine": "compiled", "source": "compiled",
        "status": "ok", "model": "palm-540b", "hw": "tpu-v4", "num_chips": 64, "phase": "decode", "batch_size": 64,
        "input_len": 2047, "output_len": 1, "ffn_layout": "ws_2d", "attn_sharding": "batch", "collectives": "plain",
        "weight_dtype": "int8", "act_dtype": "bfloat16", "kv_dtype": "bfloat16", "valid": True,
        "details": {"traces": {"decode": name}} if name else {},
    }  # fmt: skip
    return Row(**{**content, **changes})


def test_a_figure_and_a_link_for_every_file_that_is_there_and_a_remedy_for_the_rest(tmp_path):
    path = file_of(by_hand(), tmp_path / "results" / "traces")
    broken = path.with_name("broken.trace.json.gz")
    broken.write_bytes(b"nothing")
    places = Places(path.parent, tmp_path / "reports" / "studies")
    rows = [
        a_row(path.name, hbm_bytes_per_s=1.6e12, mfu=0.2),
        a_row(broken.name),
        a_row("gone", batch_size=8),
        a_row(None, output_len=64),
    ]
    rows.append(a_row(None, status="oom", batch_size=4096))
    traces = traces_of(rows, places, "study-targets")
    with style.settings():
        (drawn,) = traces.draw()
    assert drawn.name == "trace_decode_b64_i2047_o1_ws_2d_plain_int8"
    assert drawn.caption == "Trace of decode, batch 64, int8, 2047 tokens in, 1 out, ws_2d, collectives=plain."
    (cells,) = traces.table.rows
    shares = {
        "matmul_share": 0.75,
        "other_share": 0.09,
        "exposed_share": 0.16,
        "copy_wait_share": 0,
        "loop_share": 0.99,
    }
    # 60 MB in 75 µs of 1.6 TB/s; the matmuls are 8 × 75 of 810 µs.
    shares |= {"bandwidth_share": 0.5, "peak_share": 0.2 * 810 / 600}
    assert {key: cells[key] for key in shares} == pytest.approx(shares, rel=0.01)
    assert (cells["turn_s"], cells["turns"]) == (pytest.approx(100e-6), 8)
    link = "[decode, batch 64, int8, 2047 tokens in, 1 out](../../results/traces/step.trace.json.gz)"
    assert f"- {link}" in traces.text
    assert (places.out / link.partition("(")[2].rstrip(")")).resolve() == path.resolve()
    assert "ui.perfetto.dev" in traces.text
    assert "Trace files are missing of decode, batch 8, int8, 2047 tokens in, 1 out; decode, batch 64" in traces.text
    store = tmp_path / "results"
    assert f"resume=false results_dir={store} engine.trace_dir={store / 'traces'}` makes them" in traces.text
    assert f"{broken}: is not a trace" in traces.text
    assert "4096" not in traces.text
