"""The small programs: no time below the limit, none above it without a reason, and link constants from measured rows."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cli.calibrate_links import read_rows
from bench.sweep.catalog import load_chip
from engines.compiled.calibration.links import LAUNCHES, fit_links
from engines.compiled.calibration.suite import NEAR, CalibrationRow, compiled_rows
from engines.core.errors import InvalidRequest
from engines.core.slice import slice_of

TABLE = Path(__file__).parents[2] / "results" / "calibration" / "small_programs.csv"
KERNELS = ("splash attention",)
"""Kernels that state no cost: a schedule times their bytes alone."""


def collective(kind, hops, link_s, measured_s, compute_s=0.0):
    return CalibrationRow(
        hw="tpu-v5e",
        mesh_shape="4x4x1",
        kind=kind,
        program="",
        dtype="bfloat16",
        limit_s=link_s,
        compiled_s=link_s,
        measured_s=measured_s,
        compute_s=compute_s,
        hops=hops,
        link_s=link_s,
    )


@pytest.mark.parametrize("row", read_rows(TABLE), ids=lambda row: f"{row.hw} {row.kind} {row.program} {row.dtype}")
def test_no_time_is_below_the_datasheet_and_none_above_it_without_a_reason(row):
    assert not row.error
    if row.kind not in KERNELS:
        assert row.compiled_s >= row.limit_s * (1 - 1e-3)  # the table has four digits
    assert row.compiled_s <= NEAR * row.limit_s * 1.001 or row.reason


def test_every_generation_is_tabled():
    rows = read_rows(TABLE)
    assert {row.hw for row in rows} == {"tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e", "tpu-7x"}
    for hw in {row.hw for row in rows}:
        kinds = {row.kind for row in rows if row.hw == hw}
        assert {"matmul", "add", "transpose", "ring step", *LAUNCHES} <= kinds


@pytest.mark.slow
def test_the_table_is_what_the_compiler_says():
    pytest.importorskip("libtpu", reason="the compiler comes with shardbench[tpu]")
    stored = {(row.kind, row.program, row.dtype): row for row in read_rows(TABLE) if row.hw == "tpu-v5e"}
    found = list(compiled_rows(slice_of(load_chip("tpu-v5e"), 16), ("add", "ring step")))
    assert len(found) == 3
    for row in found:
        assert row.compiled_s == pytest.approx(stored[row.kind, row.program, row.dtype].compiled_s, rel=1e-3)


@given(
    launch_s=st.floats(0, 5e-6),
    hop_s=st.floats(0.1e-6, 3e-6),
    efficiency=st.floats(0.5, 1),
    compute_s=st.floats(0, 1e-5),
)
def test_constants_are_found_again(launch_s, hop_s, efficiency, compute_s):
    def measured(kind, hops, link_s):
        seconds = LAUNCHES[kind] * launch_s + hops * hop_s + link_s / efficiency + compute_s
        return collective(kind, hops, link_s, seconds, compute_s)

    cases = [("all-reduce", 6, 1e-6), ("all-reduce", 6, 1e-4), ("all-to-all", 3, 1e-6), ("all-to-all", 3, 2e-4)]
    cases += [("collective-permute", 1, 1e-6), ("reduce-scatter + all-gather", 6, 5e-5)]
    found = fit_links([measured(*case) for case in cases])
    assert found.constants.hop_s == pytest.approx(hop_s, rel=1e-3, abs=1e-9)
    assert found.constants.link_efficiency == pytest.approx(efficiency, rel=1e-3)
    assert found.constants.launch_s == pytest.approx(launch_s, rel=1e-3, abs=1e-8)
    assert found.left_out_error < 1e-3


def test_too_few_rows_and_several_chips_are_refused():
    row = collective("all-reduce", 6, 1e-6, 8e-6)
    with pytest.raises(InvalidRequest, match="three constants need"):
        fit_links([row] * 3)
    with pytest.raises(InvalidRequest, match="several chips"):
        fit_links([row, replace(row, hw="tpu-v4")])


def test_another_table_is_refused(tmp_path):
    path = tmp_path / "other.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["a", "b"], [1, 2]])
    with pytest.raises(InvalidRequest, match="is no table of small programs"):
        read_rows(path)
