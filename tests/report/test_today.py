"""Today's stacks: predictions beside published rows by chip and runtime, checked by hand."""

from dataclasses import replace

import pytest
from builders.published import newest_rows

from bench.report.main.figure_today import by_chip_and_runtime
from bench.report.main.sections import full_report
from bench.report.main.today import compared, inside_interval, source_table, today_findings
from bench.report.render import style
from bench.rows.pairing import pair_up
from bench.validate.left_out import LeftOut, left_out_errors
from engines.published.table import published_rows

TRANSFORMERS = [row for row in published_rows() if row.system == "transformers"]


@pytest.fixture(scope="module")
def rows(published, predicted):
    """Published rows of eager PyTorch, each predicted 10% too long, with an interval of half to twice the time."""
    mine = [row for row in published if row.system == "transformers"]
    of_point = {row.point_id: row for row in mine}
    assert len(of_point) == len(TRANSFORMERS) == 26
    template = next(row for row in predicted if row.runtime == "torch-eager")
    taken = {"source": template.source, "engine": template.engine, "system": None, "reference": None, "details": {}}
    answers = [
        replace(
            row,
            **taken,
            point_id=f"{row.point_id}-predicted",
            latency_s=row.latency_s * 1.1,
            latency_low_s=row.latency_s * 0.55,
            latency_high_s=row.latency_s * 2.2,
        )
        for row in mine
    ]
    return [*mine, *answers]


def test_every_published_row_meets_the_prediction_for_its_runtime(published, predicted):
    found = compared(pair_up([*published, *predicted]), [])
    assert {each.runtime for each in found} == {row.stated["runtime"] for row in published_rows()}
    assert len({each.pair.reference.point_id for each in found}) == len(found) == len(newest_rows())
    other = [replace(row, runtime="best") for row in predicted]
    assert compared(pair_up([*published, *other]), []) == []


def test_the_table_has_the_error_of_each_source(rows):
    [cells] = source_table(compared(pair_up(rows), [])).rows
    assert (cells["runtime"], cells["hw"], cells["n"]) == ("torch-eager", "a100-80gb", 26)
    assert cells["mean"] == pytest.approx(0.1)
    assert cells["worst"] == pytest.approx(0.1)
    assert cells["left_out"] is None
    assert cells["doubt"].startswith("eager PyTorch")


def test_errors_with_the_source_left_out_are_those_of_their_rows(rows):
    told = [LeftOut(row, 0.2 if row.stated["phase"] == "decode" else -0.4) for row in TRANSFORMERS]
    found = left_out_errors(rows, told)
    assert {row.phase: found[row.point_id] for row in rows if row.source == "published"} == {
        "decode": 0.2,
        "prefill": -0.4,
    }
    assert len(found) == 26
    [cells] = source_table(compared(pair_up(rows), told)).rows
    assert cells["left_out"] == pytest.approx(0.3)
    sentences = {each.topic: each.sentence for each in today_findings(compared(pair_up(rows), told))}
    assert sentences["source left out"].endswith("the closed forms err by 30.0% on average.")


def test_an_interval_holds_the_published_time_where_its_band_holds_the_ratio(rows):
    assert inside_interval(compared(pair_up(rows), [])) == (26, 26)
    narrow = [
        replace(row, latency_low_s=row.latency_s * 0.95, latency_high_s=row.latency_s * 1.3)
        if row.source == "predicted"
        else row
        for row in rows
    ]
    found = compared(pair_up(narrow), [])
    assert inside_interval(found) == (0, 26)
    # 1.1 times the published time, which is 0.91 of the prediction and below its 0.95.
    assert found[0].ratio == pytest.approx(1.1)
    assert found[0].interval == pytest.approx((1 / 1.3, 1 / 0.95))


def test_findings_have_one_figure_each(rows):
    found = {each.topic: each for each in today_findings(compared(pair_up(rows), []))}
    assert found["today's stacks"].numbers == pytest.approx({"torch-eager on a100-80gb": 0.1})
    assert "100% of the published times" in found["intervals"].sentence
    assert not found.keys() & {"source left out", "false out of memory"}
    oom = [replace(row, status="oom", latency_s=None) if row.source == "predicted" else row for row in rows]
    assert today_findings(compared(pair_up(oom), [])) == []
    some = [oom[-1], *rows[:-1]]
    assert (
        "answers: 1 of 26 published points"
        in {e.topic: e.sentence for e in today_findings(compared(pair_up(some), []))}["false out of memory"]
    )


def test_the_figure_has_a_strip_for_each_chip_and_runtime_and_a_point_for_each_row(rows):
    told = [LeftOut(row, 0.2) for row in TRANSFORMERS[:10]]
    with style.settings():
        drawn = by_chip_and_runtime(compared(pair_up(rows), told))
    [axis] = drawn.figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["torch-eager on a100-80gb (26)"]
    hollow, filled, one = axis.lines
    assert len(hollow.get_xdata()) == 26
    assert hollow.get_markerfacecolor() == "none"
    assert list(filled.get_xdata()) == pytest.approx([1.2] * 10)
    assert filled.get_markerfacecolor() != "none"
    assert set(one.get_xdata()) == {1.0}
    [band] = axis.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((0.5, 2.0))
    assert "26 published rows, by chip and runtime (1)" in drawn.caption
    assert by_chip_and_runtime([]) is None


def test_a_report_without_published_rows_has_no_such_section(rows):
    whole = {section.title: section for section in full_report(rows, "a report").sections}
    assert whole["Today's stacks"].tables
    predictions = [row for row in rows if row.source == "predicted"]
    none = {section.title: section for section in full_report(predictions, "a report").sections}["Today's stacks"]
    assert not none.tables
    assert none.draw() == []
