"""The closed forms in ``shardbench report paper``: Table 1, Figure 3, best X and N, and crossovers."""

from dataclasses import replace

import numpy as np
import pytest

from bench.report.paper import closed_forms
from bench.report.paper.closed_form_tables import closed_forms as tables_of_forms
from bench.report.paper.figure_volume import Mark, volume_over_tokens
from bench.report.render import style
from bench.sweep.catalog import load_model
from engines.analytic import paper_forms
from engines.published.table import read_table


def table_of(name):
    return next(table for section in tables_of_forms().sections for table in section.tables if table.name == name)


def row_of(name, key, value):
    return next(row for row in table_of(name).rows if row[key] == value)


def test_every_entry_of_table_1_is_within_two_percent_of_the_print():
    entries = closed_forms.table_1()
    assert [entry.published for entry in entries] == [
        float(row["max_context_len"]) for row in read_table("paper_table1.csv")
    ]
    assert all(abs(entry.predicted - entry.published) <= 0.02 * entry.published for entry in entries)
    assert all(entry.passed for entry in entries)
    assert len(entries) == 6


def test_an_entry_of_table_1_by_hand():
    # 30% of 32 GiB over 2 (keys, values) · 2 bytes · 118 layers · 256 · 128 sequences / 64 chips.
    entry = next(each for each in closed_forms.table_1() if each.variant.endswith("batch") and each.batch_size == 128)
    assert entry.predicted == pytest.approx(0.3 * 32 * 2**30 / (2 * 2 * 118 * 256 * 2))
    assert entry.relative_error == pytest.approx(entry.predicted / 43000 - 1)


@pytest.mark.parametrize("cells", read_table("paper_table1.csv"), ids=lambda cells: cells["variant"])
def test_the_model_of_an_entry_has_the_heads_that_the_print_states(cells):
    name = "palm-540b-multihead" if cells["variant"].startswith("multihead") else "palm-540b"
    assert load_model(name).head_dim == int(cells["head_dim"])


@pytest.mark.parametrize(("factor", "passed"), [(1.0199, True), (1.0201, False), (0.9801, True), (0.9799, False)])
def test_an_entry_passes_up_to_two_percent_either_way(factor, passed):
    entry = closed_forms.table_1()[0]
    changed = replace(entry, published=1000.0, predicted=1000.0 * factor)
    assert changed.passed is passed
    assert changed.to_dict()["passed"] is passed


def test_figure_3_crosses_where_the_closed_forms_say():
    curves = paper_forms.figure_3(closed_forms.tokens_of_figure_3())
    crossings = closed_forms.layout_crossings(curves)
    # F/4 as E/X = F/(YZ) = E/4; then 65536·4·16/64 and 65536·16·64/64.
    assert [(each.before, each.after, each.closed_form) for each in crossings] == [
        ("ws_2d", "wg_x", 16384),
        ("wg_x", "wg_xy", 65536),
        ("wg_xy", "wg_xyz", 1048576),
    ]
    assert all(each.on_curves == pytest.approx(each.closed_form, rel=1e-9) for each in crossings)


def test_crossings_are_found_between_samples_too():
    # No sample falls on a crossing: volumes are straight in tokens, so the line between neighbours is exact.
    curves = paper_forms.figure_3(np.geomspace(1.1e3, 9.7e6, 37))
    met = [each.on_curves for each in closed_forms.layout_crossings(curves)]
    assert met == pytest.approx([16384, 65536, 1048576], rel=1e-9)


def test_two_dimensions_beat_one_from_sixteen_chips():
    crossing = closed_forms.chip_crossing()
    assert (crossing.closed_form, crossing.on_curves) == (16, pytest.approx(16))


def test_the_volumes_of_the_smallest_batch_by_hand():
    # T = 1024: 2·1024·(16384/4 + 65536/16), and 2·16384·65536·4/64 + 2·1024·16384/4.
    row = row_of("figure3_volume", "tokens", 1024)
    assert row["ws_2d"] == 2 * 1024 * 8192 == 16777216
    assert row["wg_x"] == 134217728 + 8388608
    assert row["least"] == "ws_2d"


def test_best_x_by_hand():
    # sqrt(64/4) = 4, at which it moves 8·E/sqrt(64) = E elements a token, ws_1d 2·E.
    row = row_of("best_x", "chips", 64)
    assert (row["best_x"], row["whole_x"], row["ws_2d"], row["ratio"]) == (4, "4", 16384, 0.5)
    # Between two powers of four both neighbours move as much: 2·E·(1/2 + 4/4) = 2·E·(1 + 4/8) on 8 chips.
    row = row_of("best_x", "chips", 8)
    assert (row["whole_x"], row["ws_2d_whole"]) == ("1 or 2", 3 * 16384)
    assert row["ws_2d"] < row["ws_2d_whole"]


def test_best_n_by_hand():
    # sqrt(262144·64/65536) = 16, a layout's own N; 65536 tokens ask for 8, between wg_x and wg_xy.
    row = row_of("best_n", "tokens", 262144)
    assert (row["best_n"], row["layout"], row["ratio"]) == (16, "wg_xy", 1)
    row = row_of("best_n", "tokens", 65536)
    assert (row["best_n"], row["layout"], row["ratio"]) == (8, "wg_x = wg_xy", 1.25)
    ends = [table_of("best_n").rows[place]["best_n"] for place in (0, -1)]
    assert ends == [1, 64]


def test_the_figure_has_every_layout_and_a_ring_at_every_mark():
    curves = paper_forms.figure_3(closed_forms.tokens_of_figure_3())
    with style.settings():
        drawn = volume_over_tokens(curves, [Mark(16384.0, 268435456.0, "here")], "caption")
    (axis,) = drawn.figure.axes
    lines = {line.get_label(): line for line in axis.lines}
    for name, elements in curves.elements.items():
        assert np.array_equal(lines[name].get_ydata(), elements)
    assert list(axis.lines[-1].get_xydata()[0]) == [16384, 268435456]
    assert [text.get_text() for text in axis.texts] == ["here"]
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")


@pytest.mark.parametrize(("printed", "passes"), [("1320", True), ("1350", True), ("1400", False)])
def test_an_entry_that_is_off_fails(monkeypatch, printed, passes):
    cells = [
        row | {"max_context_len": printed} if row["max_context_len"] == "1320" else row
        for row in read_table("paper_table1.csv")
    ]
    monkeypatch.setattr(closed_forms, "read_table", lambda name: cells)
    forms = tables_of_forms()
    checks = [entry.to_dict() for entry in forms.entries]
    assert [check["passed"] for check in checks] == [passes] + 5 * [True]
    assert checks[0]["stated"] == float(printed)
    assert checks[0]["value"] == pytest.approx(1332.9, rel=1e-4)
    assert f"{5 + passes} of 6 entries agree within 2%" in forms.findings[0].sentence
