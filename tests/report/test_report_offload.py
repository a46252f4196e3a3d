"""``shardbench report offload``: the cheapest token of each place, and what streaming did."""

from dataclasses import replace

import pytest
from builders.points import point
from study_rows import a_row_of

from bench.report.offload.report import SWEEP, cheapest, cost, offload_report
from bench.report.render import style
from engines.core.errors import ShardbenchError


def predicted(offload, offload_kv, batch, latency_s, status="ok"):
    asked = point(
        model="opt-175b",
        hw="h100-80gb",
        engine="analytic",
        num_chips=1,
        phase="generate",
        batch_size=batch,
        input_len=512,
        output_len=32,
        weight_dtype="float16",
        offload=offload,
        offload_kv=offload_kv,
    )
    row = replace(a_row_of(asked, latency_s), source="predicted", engine="analytic", sweep=SWEEP, status=status)
    return replace(row, latency_s=latency_s if status == "ok" else None)


def streamed():
    timeline = [["read", 0, 0.0, 0.1], ["copy", 0, 0.1, 0.2], ["read", 1, 0.1, 0.2], ["compute", 0, 0.2, 0.4]]
    run = {
        **{"read_bytes": 8192, "copy_bytes": 8000, "read_busy_s": 0.2, "copy_busy_s": 0.2, "compute_busy_s": 0.3},
        **{"fetches": 4, "fetches_overlapped": 3, "timeline": timeline},
    }
    row = replace(predicted("nvme", "none", 8, 1.0), source="measured", engine="jax", sweep=None)
    return replace(row, details={"offload": {"decode": run}, "peak_resident_bytes": 5e8})


ROWS = [
    predicted("none", "none", 1, None, status="oom"),
    predicted("host", "none", 4, 12.8),
    predicted("host", "none", 16, 25.6),
    predicted("host", "host", 64, 64.0),
]


def test_the_cost_of_a_token_is_the_latency_over_all_that_are_generated():
    assert cost(ROWS[1]) == 12.8 / (4 * 32)
    assert cost(ROWS[0]) is None


def test_of_each_place_the_cheapest_batch_stands_and_the_cheapest_place_first():
    (best,) = cheapest(ROWS).values()
    assert [(row.offload_kv, row.batch_size) for row in best] == [("host", 64), (None, 16)]


def test_the_report_says_both_and_draws_them():
    document = offload_report([*ROWS, streamed(), replace(streamed(), engine="torch")], "Offload")
    answer, first, last = document.findings
    # 64 s for 64 · 32 tokens, against 25.6 s for 16 · 32.
    assert answer.sentence == (
        "The cheapest token of OPT 175B on one h100-80gb: batch 64, float16, weights in host memory, cache in host "
        "memory, 0.0312 chip-seconds; the next best place (weights in host memory, cache in HBM, float16, batch 16) "
        "costs 1.6 times that."
    )
    assert document.front.findings == [answer]
    assert "weights in host memory, cache in host memory, at batch 64" in first.sentence
    ahead = "100.0% of 6 fetches began before the layer before them was computed, in 2 measured rows of jax and torch."
    assert last.sentence == ahead
    tables = {table.name: table for section in document.sections for table in (*section.tables, *section.linked)}
    assert len(tables["offload_all"].rows) == len(ROWS)
    assert tables["offload_measured"].rows[0]["read"] == 8192
    pytest.importorskip("matplotlib")
    with style.settings():
        drawn = [figure.name for section in document.sections for figure in section.draw()]
    assert drawn == ["offload_cost", "offload_timeline_jax", "offload_timeline_torch"]


def test_without_rows_the_command_is_named():
    with pytest.raises(ShardbenchError, match="shardbench run \\+sweep=study-offload"):
        offload_report([], "Offload")
