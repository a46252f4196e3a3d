"""What is said of the rows, and the claims of the paper against them."""

import re
from dataclasses import replace

import pytest
from builders.rows import a_row

from bench.report.claims.checks import CLAIMS, check_claims, claims_table
from bench.report.claims.contenders import TP16, TP32, comparison_tables, curves
from bench.report.main.best import best_by_contender
from bench.report.main.findings import findings
from bench.report.main.sections import full_report
from bench.report.render import style
from bench.rows.frontier import frontier
from bench.rows.pairing import pair_errors, pair_up
from bench.rows.plausible import plausible
from bench.rows.wrong_peaks import withhold_wrong_shares


def told(rows, topic):
    return [each for each in findings(rows, pair_up(rows)) if each.topic == topic]


def test_the_headline_keeps_the_kinds_apart(rows):
    found = {each.sources: each for each in told(rows, "headline")}
    assert set(found) == {("published",), ("predicted",)}
    published = found[("published",)].numbers
    # 1024 sequences of 80 tokens in 11.608 s at 2·540e9 FLOPs a token, over 64 chips of 275 TFLOP/s.
    assert published["PaLM 540B, 64 TPU v4"] == pytest.approx(1024 * 80 / 11.608 * 1.08e12 / (64 * 275e12))
    assert published["FasterTransformer TP32"] == pytest.approx(256 * 80 / 7.203 * 1.06e12 / (32 * 312e12))
    assert "43.3%" in found[("published",)].sentence


def test_the_prediction_error_is_that_of_the_pairs(published, predicted):
    rows = [*published, *predicted]
    (found,) = told(rows, "prediction error")
    errors = pair_errors(pair_up(rows))
    assert found.numbers["mean"] == pytest.approx(errors.mean)
    assert f"{errors.n} rows" in found.sentence
    assert f"{errors.mean:.1%}" in found.sentence


def test_the_held_out_error_is_of_sources_on_chips_that_are_there(published, predicted):
    (mine,) = told([row for row in [*published, *predicted] if row.hw == "tpu-v4"], "held-out error")
    (all_chips,) = told([*published, *predicted], "held-out error")
    assert set(mine.numbers) < set(all_chips.numbers)
    assert "fastertransformer_gpt-20b" in set(all_chips.numbers) - set(mine.numbers)
    worst = max(all_chips.numbers.values())
    assert f"{worst:.1%}" in all_chips.sentence


def test_validity_is_counted(measured):
    (found,) = told(measured, "validity")
    assert found.numbers == {"measured": 9, "valid": 8}
    assert found.sentence == "8 of 9 measured rows are valid."


def test_the_fastest_layout_is_counted_over_questions(measured):
    (found,) = told(measured, "fastest layout")
    # ws_1d is the faster of two in all four questions; the row that is not valid takes no part.
    assert found.numbers["questions"] == found.numbers["ws_1d, attention by heads"] == found.numbers["clear"] == 4
    assert len(found.numbers) == 4
    assert found.sentence.startswith("ws_1d, attention by heads is the fastest layout for 4 of 4 decode points")


def test_a_layout_that_wins_half_of_the_points_is_not_the_fastest(measure):
    seconds = {(8, "ws_1d"): 1.0, (8, "ws_2d"): 2.0, (16, "ws_1d"): 2.0, (16, "ws_2d"): 1.0}
    rows = [measure(each, batch_size=batch, ffn_layout=layout) for (batch, layout), each in seconds.items()]
    (found,) = told(rows, "fastest layout")
    assert found.sentence.startswith("No layout is the fastest for more than half of 2 decode points")


def test_layouts_within_each_others_intervals_are_not_clear(measure):
    rows = [measure(1.0 + 0.01 * place, ffn_layout=layout) for place, layout in enumerate(("ws_1d", "ws_2d"))]
    (found,) = told(rows, "fastest layout")
    assert found.numbers["clear"] == 0


def test_every_finding_is_one_sentence_with_one_figure(rows, measure):
    wrong = replace(measure(1.0), mfu=1.1)
    document = full_report([*rows, wrong], "title")
    figure = re.compile(r"\d(?:[\d,]*\.\d+|[\d,]*)(?:%| ms| s\b)|\d+ of \d+")
    for each in document.findings:
        assert each.sentence.endswith("."), each
        assert not re.search(r"[.;] ", each.sentence), each
        assert len(each.sentence.split()) <= 30, each
        assert len(figure.findall(each.sentence)) <= 1, each


def drawn_mfu(document):
    """Every MFU in percent that a figure of the document shows on an axis of that name."""
    shown = []
    for section in (document.front, *document.sections):
        for drawn in section.draw() if section.draw else []:
            for axis in drawn.figure.axes:
                if "MFU" in drawn.figure.axes[0].get_ylabel():
                    shown += [value for line in axis.lines for value in line.get_ydata()]
    return shown


@pytest.mark.parametrize("mfu", [1.0001, 1.097, 40.0])
def test_an_mfu_above_one_is_no_headline_and_says_so(measure, published, mfu):
    peak = {"peak_flops_per_s": 1e11, "measured_matmul_flops_per_s": 1e11}
    wrong = replace(measure(1.0, num_chips=2), mfu=mfu, **peak)
    same_peak = replace(measure(1.0, num_chips=2, batch_size=16), mfu=0.99, **peak)
    other = replace(measure(1.0, num_chips=4), mfu=0.4, **peak)
    document = full_report([wrong, same_peak, other, *published], "title")
    for finding in document.findings:
        assert all(not isinstance(value, float) or value != mfu for value in finding.numbers.values())
    best = next(each for each in document.findings if each.topic == "highest MFU" and "measured" in each.sources)
    assert best.numbers == {"mfu": 0.4}
    assert next(each for each in document.findings if each.topic == "wrong peak").numbers == {"rows": 2}
    tables = [table for section in document.sections for table in (*section.tables, *section.linked)]
    cells = [row for table in tables for row in table.rows if row.get("source") == "measured" and "note" in row]
    assert [(row["mfu"], row["note"] != "") for row in cells] == [(None, True), (None, True), (0.4, False)]
    with style.settings():
        assert max(drawn_mfu(document)) < 100


def test_an_impossible_row_is_no_best_and_no_finding(published):
    best = {label: row.point_id for label, row in best_by_contender(published, "published").items()}
    # The fastest of every contender is copied with a hundredth of its time, as if its unit had been taken wrongly.
    wrong = [
        plausible(replace(row, latency_s=row.latency_s / 100, mfu=100 * row.mfu, point_id=f"wrong {row.point_id}"))
        for row in best_by_contender(published, "published").values()
    ]
    assert all(not row.valid for row in wrong)
    assert {label: row.point_id for label, row in best_by_contender([*wrong, *published], "published").items()} == best
    told = [(each.topic, each.numbers) for each in findings(published, []) if each.topic != "rows"]
    assert [(each.topic, each.numbers) for each in findings([*published, *wrong], []) if each.topic != "rows"] == told


def test_a_datasheet_s_peak_is_doubted_for_the_row_alone(measure):
    rows = [replace(measure(1.0), mfu=1.1), replace(measure(1.0, batch_size=16), mfu=0.9)]
    assert [row.mfu for row in withhold_wrong_shares(rows)] == [None, 0.9]


def test_an_invalid_row_has_no_highest_mfu(measure):
    rows = [measure(1.0), measure(0.1, valid=False, batch_size=16)]
    (found,) = told(rows, "highest MFU")
    assert found.numbers["mfu"] == pytest.approx(rows[0].mfu)


def test_nothing_is_said_of_what_is_not_there(measured):
    topics = {each.topic for each in findings(measured, [])}
    assert "headline" not in topics
    assert "prediction error" not in topics


def test_the_frontier_is_beaten_by_none(predicted):
    rows = [row for row in predicted if row.model == "palm-62b" and row.phase == "decode"]
    best = frontier(rows)
    assert best
    for row in best:
        for other in rows:
            if other.status == "ok":
                beats = other.step_time_s < row.step_time_s and other.cost_chip_s_per_token < row.cost_chip_s_per_token
                assert not beats


def test_every_claim_that_published_rows_can_tell_holds(published):
    checks = check_claims(published)
    decided = [check for check in checks if check.passed is not None]
    failed = [check.claim.text for check in decided if not check.passed]
    assert failed == []
    # The serial block was never published as a row.
    assert [check.claim.text for check in checks if check.passed is None] == [CLAIMS[-1].text]


def test_a_claim_fails_where_the_rows_say_otherwise(published):
    step = next(row for row in published if row.output_len == 1 and row.weight_dtype == "int8")
    slower = replace(step, latency_s=0.03, step_time_s=0.03)
    rows = [slower if row is step else row for row in published]
    failed = [check for check in check_claims(rows) if check.passed is False]
    assert [check.claim.text for check in failed] == ["decode step, batch 64, context 2048, int8"]
    (printed,) = claims_table(failed).printed
    assert (printed["paper"], printed["published"]) == ("28.5 ms", "30 ms FAIL")
    (stored,) = claims_table(failed).rows
    assert (stored["stated_value"], stored["found_value"], stored["result"]) == (0.0285, 0.03, "FAIL")


def test_a_prediction_may_be_off_by_more_than_rounding(published):
    step = next(row for row in published if row.output_len == 1 and row.weight_dtype == "int8")
    for factor, passes in ((1.14, True), (1.16, False)):
        answer = replace(step, source="predicted", engine="analytic", step_time_s=0.0285 * factor)
        (check,) = [c for c in check_claims([answer]) if c.claim.text == "decode step, batch 64, context 2048, int8"]
        assert check.passed is passes


def test_a_row_that_is_not_valid_decides_no_claim(published):
    rows = [replace(row, valid=False) for row in published]
    assert all(check.passed is None for check in check_claims(rows))


def test_curves_hold_each_contender_of_each_kind(published, predicted):
    rows = [*published, *predicted]
    found = curves(rows, pair_up(rows))
    published_60_20 = [each for each in found if each.lengths == (60, 20) and each.source == "published"]
    assert [len(each.rows) for each in published_60_20] == [9, 9, 8, 9, 9]
    for each in found:
        batches = [row.batch_size for row in each.rows]
        assert batches == sorted(set(batches))
        assert {row.source for row in each.rows} == {each.source}
    assert {each.contender.label for each in found} >= {TP16.label, TP32.label}


def test_comparison_tables_hold_latency_mfu_and_cost_for_each_pair_of_lengths(published, predicted):
    rows = [*published, *predicted]
    pairs = pair_up(rows)
    names = [each.name for each in comparison_tables(curves(rows, pairs), pairs)]
    assert names[0] == "comparison_summary"
    assert len(names) == 1 + 3 * 3
    (latency,) = [
        each for each in comparison_tables(curves(rows, pairs), pairs) if each.name == "comparison_60_20_latency_s"
    ]
    by_batch = {row["batch_size"]: row for row in latency.rows}
    assert by_batch[128]["FasterTransformer TP16, published"] == 5.406
    assert by_batch[256]["FasterTransformer TP16, published"] is None


def test_a_bound_is_no_looser_for_a_prediction(published):
    decode = next(row for row in published if row.output_len == 64 and row.weight_dtype == "int8")
    answer = replace(decode, source="predicted", engine="analytic", latency_s=2.0)
    (check,) = [c for c in check_claims([answer]) if c.claim.relation == "at most"]
    assert check.passed is False


def test_an_engine_that_is_called_as_its_kind_of_evidence_is_named_once():
    fast = {"model": "palm-540b", "hw": "tpu-v4", "num_chips": 64, "phase": "decode", "batch_size": 64, "valid": True}
    rows = [
        a_row(**fast, source=source, engine=engine, mfu=0.25, latency_s=1.0, step_time_s=0.1)
        for source, engine in (("compiled", "compiled"), ("predicted", "analytic"))
    ]
    said = [each.sentence for each in told(rows, "highest MFU")]
    assert [sentence.partition(" MFU")[0] for sentence in said] == [
        "The highest compiled",
        "The highest predicted (analytic)",
    ]
