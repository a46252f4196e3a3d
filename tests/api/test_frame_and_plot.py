"""Frames know their units and refuse an empty store; figures show every valid row once, its source and its interval."""

from pathlib import Path

import pytest
from builders.rows import a_row
from hypothesis import given
from hypothesis import strategies as st

import bench
from bench.api.frame import framed, units
from bench.api.plot import SYMBOLS, colours_of
from bench.report.render.style import KINDS
from bench.rows.interval import power_of
from bench.rows.labels import SOURCES
from bench.rows.metric import PREFIXES
from bench.rows.metrics import METRICS, derive
from bench.rows.store import Store
from bench.sweep.catalog import load_chip, load_model
from engines.core.point import Point

TIMES = {"latency_s": 2.0, "latency_low_s": 1.0, "latency_high_s": 4.0, "mfu": 0.25, "valid": True}


def rows_of_all_sources():
    kinds = [{"source": source, "hw": hw} for source in SOURCES for hw in ("cpu", "tpu-v4")]
    return [a_row(**TIMES, **kind, batch_size=2**place) for place, kind in enumerate(kinds)]


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_a_metric_has_the_unit_of_its_unscaled_value(metric):
    if metric.scale == 1:
        assert metric.si_unit == metric.unit
    elif metric.unit == "%":
        assert (metric.scale, metric.si_unit) == (100, "")
    else:
        prefixes = [prefix for prefix, scale in PREFIXES.items() if scale == metric.scale]
        at = [
            place for place in range(len(metric.unit)) for prefix in prefixes if metric.unit.startswith(prefix, place)
        ]
        assert metric.si_unit in [metric.unit[:place] + metric.unit[place + len(prefixes[0]) :] for place in at]
    ends = {"_s": "s", "_bytes": "B/chip", "_flops_per_s": "FLOP/s", "bytes_per_s": "B/s"}
    known = [unit for end, unit in ends.items() if metric.name.endswith(end) and not metric.name.endswith("per_s")]
    assert not known or metric.si_unit in known


def test_a_store_is_a_frame_with_units_and_sources(tmp_path):
    rows = rows_of_all_sources()
    Store(tmp_path).append([row for place, row in enumerate(rows) if not setattr_id(row, place)])
    frame = bench.load(tmp_path)
    assert len(frame) == len(rows)
    assert frame.attrs["units"]["latency_s"] == "s"
    assert frame.attrs["titles"]["mfu"] == "MFU (%)"
    assert set(frame.source) == set(frame.attrs["sources"])
    assert frame.attrs["units"].keys() <= set(frame.columns)
    assert frame[frame.source == "measured"].attrs == frame.attrs


def setattr_id(row, place):
    object.__setattr__(row, "point_id", f"{place:016x}")


def test_one_row_stands_for_a_point_unless_history_is_asked(tmp_path):
    store = Store(tmp_path)
    for second in (1, 2):
        store.append([a_row(latency_s=float(second), created_at=f"2026-01-0{second}T00:00:00.000+00:00")])
    assert list(bench.load(tmp_path).latency_s) == [2.0]
    assert list(bench.load(str(tmp_path), history=True).latency_s) == [1.0, 2.0]


@pytest.mark.parametrize("columns", [None, ["model"], ["cost_usd_per_mtok"]])
def test_a_filter_names_a_field_of_a_row(tmp_path, columns):
    Store(tmp_path).append([a_row()])
    with pytest.raises(bench.InvalidRequest, match="where=modle: is no field of a row"):
        bench.load(tmp_path, columns=columns, where={"modle": "tiny"})


def test_no_store_and_an_empty_store_are_sentences(tmp_path):
    with pytest.raises(bench.InvalidRequest, match="does not exist"):
        bench.load(tmp_path / "none")
    with pytest.raises(bench.ShardbenchError, match="holds no rows"):
        bench.load(tmp_path)
    Store(tmp_path / "inner").append([a_row()])
    with pytest.raises(bench.ShardbenchError, match=f"use one of {tmp_path / 'inner'}"):
        bench.load(tmp_path)


def drawn_by_matplotlib(figure):
    """(marker, is filled, x, y) of every mark."""
    return [
        (line.get_marker(), line.get_markerfacecolor() != "white", float(x), float(y))
        for line in figure.axes[0].lines
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]


def drawn_by_plotly(figure):
    markers = {symbol: marker for marker, symbol in SYMBOLS.items()}
    return [
        (markers[trace.marker.symbol.removesuffix("-open")], not trace.marker.symbol.endswith("-open"), x, y)
        for trace in figure.data
        if "markers" in trace.mode
        for x, y in zip(trace.x, trace.y, strict=True)
    ]


def test_both_libraries_draw_every_row_once_with_its_source_and_unit():
    frame = framed(rows_of_all_sources())
    wanted = sorted(
        (KINDS[source]["marker"], KINDS[source]["filled"], float(batch), 25.0)
        for source, batch in zip(frame.source, frame.batch_size, strict=True)
    )
    figure = bench.plot(frame, "batch_size", "mfu", color="hw")
    assert sorted(drawn_by_matplotlib(figure)) == wanted
    assert figure.axes[0].get_ylabel() == "MFU (%)"
    pytest.importorskip("plotly")
    page = bench.plot(frame, "batch_size", "mfu", color="hw", backend="plotly")
    assert sorted(drawn_by_plotly(page)) == wanted
    assert page.layout.yaxis.title.text == "MFU (%)"


def test_an_interval_goes_with_the_time_and_against_the_rate():
    figure = bench.plot(framed([a_row(**TIMES)]), "latency_s", "mfu", color="hw")
    ((low, high),) = figure.axes[0].collections[0].get_segments()
    assert [*map(float, low)] == [1.0, 50.0]
    assert [*map(float, high)] == [4.0, 12.5]


@given(factor=st.floats(0.1, 10.0), phase=st.sampled_from(["prefill", "decode", "generate"]))
def test_a_derived_metric_scales_as_its_power_says(factor, phase):
    point = Point(
        model=load_model("tiny"),
        chip=load_chip("tpu-v4"),
        num_chips=1,
        engine="analytic",
        phase=phase,
        batch_size=4,
        input_len=16,
        output_len=4,
    )
    peaks = {"peak_flops_per_s": 1e12, "hbm_bytes_per_s": 1e11, "matmul_flops_per_s": 1e12, "copy_bytes_per_s": 1e11}
    stage = {"prefill_s": 0.3} if phase == "generate" else {}
    one, other = (derive(point, latency_s=1.0 * by, **stage, **peaks) for by in (1.0, max(factor, 0.4)))
    for name, value in one.items():
        power = power_of(name, phase)
        if value is not None and power:
            assert other[name] == pytest.approx(value * max(factor, 0.4) ** power)


def test_what_is_not_drawn_is_said():
    rows = [a_row(**TIMES), a_row(status="oom"), a_row(**{**TIMES, "valid": False})]
    figure = bench.plot(framed(rows), "batch_size", "mfu")
    assert figure.axes[0].get_title(loc="left") == "not drawn: 1 row without batch_size or mfu, 1 row not valid"
    assert bench.plot(framed([]), "batch_size", "mfu").axes[0].get_title(loc="left") == "no rows"


def test_names_with_markup_stay_text():
    frame = framed([a_row(**TIMES, model="<b>$x$</b>")])
    figure = bench.plot(frame, "hw", "mfu")
    assert "<b>$x$</b>" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert not any(text.get_parse_math() for text in figure.legends[0].get_texts() if "$" in text.get_text())
    pytest.importorskip("plotly")
    assert "<b>" not in bench.plot(frame, "hw", "mfu", backend="plotly").data[0].name


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"x": "latency", "y": "mfu"}, "x=latency: is no column of the frame; did you mean latency_s"),
        ({"x": "mfu", "y": "model"}, "y=model: has no numbers"),
        ({"x": "mfu", "y": "valid"}, "y=valid: has no numbers"),
        ({"x": "hw", "y": "mfu", "log_x": True}, "log_x=true: needs numbers"),
        ({"x": "hw", "y": "mfu", "color": "chip"}, "color=chip: is no column"),
        ({"x": "hw", "y": "mfu", "backend": "bokeh"}, "backend=bokeh: is not known; use matplotlib or plotly"),
    ],
)
def test_a_wrong_figure_is_one_sentence(asked, sentence):
    with pytest.raises(bench.InvalidRequest) as raised:
        bench.plot(framed([a_row(**TIMES)]), **asked)
    assert sentence in str(raised.value)


def test_a_frame_without_sources_is_refused():
    with pytest.raises(bench.InvalidRequest, match="source=source: is no column"):
        bench.plot(framed([a_row(**TIMES)])[["hw", "mfu"]], "hw", "mfu", color="hw")


@pytest.mark.parametrize("count", [1, 8, 9, 60])
def test_every_label_has_a_colour_of_its_own(count):
    labels = [str(each) for each in range(count)]
    assert len(set(colours_of(labels).values())) == count


def test_every_unit_is_of_a_column_of_a_row():
    assert units().keys() <= set(framed([]).columns)


def test_the_shipped_store_loads():
    frame = bench.load(Path(__file__).parents[2] / "results" / "studies")
    assert frame.point_id.is_unique
