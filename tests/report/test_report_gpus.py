"""The study of GPUs: shares of what was published, chips against each other, and the figure."""

from dataclasses import replace

import pytest

from bench.report.render import style
from bench.report.studies.figure_roofline import bounds_and_rooflines
from bench.report.studies.findings import published_s
from bench.report.studies.gpus import bounds_below_published, share_without_arithmetic, without_copies_s
from bench.report.studies.rows import answers, points_of
from engines.core.row import POINT_FIELDS, Row

ROOFS = {"matmul_flops_per_s": {"float16": 300e12, "bfloat16": 300e12}, "hbm_bytes_per_s": 2e12}


@pytest.fixture(scope="module")
def points():
    return points_of("study-gpu")


def a_row_of(point, seconds, **changes):
    """An engine's answer of 10 turns of its loop: in each of them copies take 30% of the time, a product 20%."""
    asked = {key: value for key, value in point.axes().items() if key in POINT_FIELDS}
    steps = point.decode_steps if point.phase == "decode" else 1
    whole = seconds * steps
    kinds = [
        {"name": "loop_dynamic_slice_fusion", "seconds": 0.03 * whole, "bytes": 6e6, "flops": 0, "count": 3},
        {"name": "gemm_fusion_dot", "seconds": 0.02 * whole, "bytes": 3e6, "flops": 9e9, "count": 1},
        {"name": "all-gather", "seconds": 0.01 * whole, "bytes": 3e6, "count": 1},
    ]
    loop = {"turns": 10, "seconds": 0.06 * whole, "by_kind": kinds, "longest": kinds}
    content = {
        **asked,
        "chosen": [],
        "engine": "compiled",
        "source": "compiled",
        "status": "ok",
        "valid": True,
        "point_id": point.fingerprint("compiled"),
        "created_at": "2026-01-02T03:04:05.006+00:00",
        "latency_s": whole,
        "step_time_s": seconds if point.phase == "decode" else None,
        "details": {
            "least_s": 0.9 * whole,
            "hot_loop": {"prefill" if point.phase == "prefill" else "decode": loop},
            "roofline": ROOFS,
        },
    }
    return Row(**{**content, **changes})


def gpt(points, **asked):
    return [
        point
        for point in points
        if point.model.name == "gpt-20b" and all(getattr(point, key) == value for key, value in asked.items())
    ]


def test_the_recipe_asks_what_fastertransformer_published(points):
    assert [point.batch_size for point in gpt(points, num_chips=8)] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert [point.num_chips for point in gpt(points, batch_size=16)] == [8, 1, 2, 4]
    (point,) = gpt(points, num_chips=8, batch_size=16)
    assert published_s(a_row_of(point, 0.1)) == 0.272  # docs/gpt_guide.md: 272 ms
    assert answers(a_row_of(point, 0.1), point)
    for other in points:
        assert (published_s(a_row_of(other, 0.1)) is None) == (other.model.name != "gpt-20b")


def test_shares_by_hand(points):
    (large,), (small,), (one,) = (
        gpt(points, num_chips=chips, batch_size=batch) for chips, batch in ((8, 16), (8, 1), (1, 16))
    )
    sentence, numbers = bounds_below_published([a_row_of(large, 0.136), a_row_of(small, 0.053), a_row_of(one, 1.496)])
    assert sentence == "The roofline bound is below the published time at 2 of 3 points."
    assert numbers["gpt-20b.8.16.share"] == pytest.approx(0.5)
    assert numbers["gpt-20b.8.1.share"] == pytest.approx(0.25)
    assert numbers["gpt-20b.1.16.share"] == pytest.approx(2.0)
    # 10 turns of 3% each are 30% of the time.
    assert numbers["gpt-20b.1.16.share without copies of weights"] == pytest.approx(1.4)
    assert numbers["gpt-20b.1.16.share with an ideal L2 cache"] == pytest.approx(1.8)
    assert numbers["without_arithmetic"] == pytest.approx(0.5)


def test_chips_against_each_other(points):
    seconds = {"a100-80gb": 0.030, "h100-80gb": 0.020}
    mine = [point for point in points if point.model.name == "llama-3-70b"]
    sentence, numbers = bounds_below_published([a_row_of(point, seconds[point.chip.name]) for point in mine])
    assert sentence == "Instructions without arithmetic take up to 50% of the loop over layers."
    for phase in ("decode", "prefill"):
        assert numbers[f"llama-3-70b.{phase}.a100-80gb.s"] == 0.030
        assert numbers[f"llama-3-70b.{phase}.h100-80gb.s"] == 0.020


def test_copies_are_slices_without_arithmetic_that_update_nothing(points):
    row = a_row_of(points[0], 0.1)
    assert without_copies_s(row) == pytest.approx(0.07)
    assert share_without_arithmetic(row) == pytest.approx(0.5)
    kinds = [
        {"name": "loop_dynamic_update_slice_fusion", "seconds": 0.5, "flops": 0},
        {"name": "input_dynamic_slice_reduce_fusion", "seconds": 0.5, "flops": 100},
    ]
    other = replace(row, details={"hot_loop": {"decode": {"turns": 10, "by_kind": kinds}}})
    assert without_copies_s(other) is None
    assert share_without_arithmetic(other) == 0.5
    assert share_without_arithmetic(replace(row, details={})) is None


def test_rows_without_times_tell_nothing(points):
    assert bounds_below_published([]) is None
    assert bounds_below_published([a_row_of(points[0], 0.1, status="oom", latency_s=None)]) is None


def test_the_figure_has_a_panel_of_times_and_one_a_chip(points):
    rows = [a_row_of(point, 0.05 + 0.01 * number) for number, point in enumerate(points)]
    with style.settings():
        drawn = bounds_and_rooflines("study_gpu", "Caption.", rows, published_s)
    titles = [axis.get_title(loc="left") for axis in drawn.figure.axes]
    assert titles == ["GPT 20B, 8 a100-80gb", "a100-80gb: 300 TFLOP/s, 2000 GB/s", "h100-80gb: 300 TFLOP/s, 2000 GB/s"]
    over_batch, a100, _ = drawn.figure.axes
    compiled, published = over_batch.lines
    assert list(published.get_xdata()) == list(compiled.get_xdata()) == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert published.get_ydata()[4] == pytest.approx(272)
    # Below the ridge at 150 FLOP per byte the roof is the bandwidth, above it the peak.
    (roof,) = a100.lines
    assert list(roof.get_xdata())[1] == pytest.approx(150)
    assert list(roof.get_ydata())[1:] == pytest.approx([300, 300])
    # GPT at two batches, Llama's decode and prefill: a product each, and what does no arithmetic.
    assert len(a100.collections) == 4 * 2
    assert [text.get_text() for text in a100.texts] == ["50%"] * 4


def test_the_figure_without_anything_published_or_of_no_gpu_s_rows(points):
    mine = [point for point in points if point.model.name == "llama-3-70b"]
    with style.settings():
        drawn = bounds_and_rooflines("study_gpu", "Caption.", [a_row_of(point, 0.1) for point in mine], published_s)
    assert len(drawn.figure.axes) == 2
