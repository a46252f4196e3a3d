"""Which answers are of the same question, and what their errors say."""

from dataclasses import replace

import pytest
from builders.published_files import published_files
from builders.rows import a_row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.rows import pairing
from bench.rows.pairing import Pair, pair_errors, pair_up
from bench.validate.csv_cases import read_cases
from bench.validate.errors import ERROR_FIGURES, Compared, figures
from engines.core.engine import Estimate


def test_every_published_row_meets_the_prediction_for_it(published, predicted):
    pairs = pair_up([*published, *predicted])
    assert len(pairs) == len(published)
    assert {pair.reference.point_id for pair in pairs} == {row.point_id for row in published}
    for pair in pairs:
        for key in ("model", "hw", "num_chips", "phase", "batch_size", "input_len", "output_len", "weight_dtype"):
            assert getattr(pair.answer, key) == getattr(pair.reference, key)


def test_a_stated_layout_meets_no_other(published, predicted):
    reference = next(row for row in published if row.ffn_layout == "ws_2d" and row.latency_s)
    answer = next(pair.answer for pair in pair_up([reference, *predicted]))
    other = replace(answer, ffn_layout="ws_1d")
    assert [pair.answer for pair in pair_up([reference, answer])] == [answer]
    assert pair_up([reference, other]) == []


def test_an_open_cell_is_the_engines_own_choice(published, predicted):
    reference = next(row for row in published if row.attn_sharding in (None, "auto") and row.hw == "tpu-v4")
    answer = next(pair.answer for pair in pair_up([reference, *predicted]))
    assert "attn_sharding" in answer.chosen
    # The same value, asked for: another question.
    asked = replace(answer, chosen=[key for key in answer.chosen if key != "attn_sharding"])
    assert pair_up([reference, asked]) == []


def test_what_an_engine_chose_meets_what_is_stated(published, predicted):
    reference = next(row for row in published if row.attn_sharding == "batch")
    answer = next(pair.answer for pair in pair_up([reference, *predicted]))
    chose = replace(answer, chosen=[*answer.chosen, "attn_sharding"])
    assert len(pair_up([reference, chose])) == 1


def test_a_question_asked_many_times_is_looked_at_once(published, predicted, monkeypatch):
    reference = next(row for row in published if row.latency_s)
    answer = next(pair.answer for pair in pair_up([reference, *predicted]))
    looks = []
    monkeypatch.setattr(pairing, "_meets", lambda *asked: looks.append(asked) or True)

    def of(times):
        looks.clear()
        rows = [replace(row, point_id=str(number)) for number in range(times) for row in (reference, answer)]
        return [(pair.reference.point_id, pair.answer.point_id) for pair in pair_up(rows)], len(looks)

    assert of(1) == ([("0", "0")], len(pairing.OPEN))
    assert of(50) == ([(str(number), "0") for number in range(50)], len(pairing.OPEN))


def test_of_two_answers_the_one_with_more_left_open_is_taken(published, predicted):
    reference = next(row for row in published if row.attn_sharding == "batch")
    asked = next(pair.answer for pair in pair_up([reference, *predicted]))
    chose = replace(asked, chosen=[*asked.chosen, "ffn_layout", "attn_sharding"], point_id="other")
    for rows in ([reference, asked, chose], [chose, asked, reference]):
        assert [pair.answer for pair in pair_up(rows)] == [chose]


def test_each_engine_has_its_own_pair(published, predicted):
    reference = next(row for row in published if row.attn_sharding == "batch")
    answer = next(pair.answer for pair in pair_up([reference, *predicted]))
    compiled = replace(answer, source="compiled", engine="compiled")
    kinds = [pair.answer.source for pair in pair_up([reference, answer, compiled])]
    assert kinds == ["compiled", "predicted"]


def test_errors_by_hand(measure):
    reference = measure(1.0)
    pairs = [Pair(replace(reference, latency_s=seconds), reference) for seconds in (1.1, 0.8, 1.0, 1.3)]
    errors = pair_errors(pairs)
    assert errors.n == 4
    assert errors.mean == pytest.approx((0.1 + 0.2 + 0.0 + 0.3) / 4)
    assert errors.median == pytest.approx(0.15)
    assert errors.p90 == pytest.approx(0.27)  # 70% of the way from 0.2 to 0.3
    assert errors.worst == pytest.approx(0.3)
    assert errors.bias == pytest.approx((0.1 - 0.2 + 0.0 + 0.3) / 4)


TIMES = st.floats(1e-4, 1e4)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(times=st.lists(st.tuples(TIMES, TIMES), min_size=1, max_size=30), seed=st.randoms())
def test_validate_and_the_report_compute_the_same_figures_in_any_order(measure, times, seed):
    row = measure(1.0)
    pairs = [Pair(replace(row, latency_s=answer), replace(row, latency_s=reference)) for answer, reference in times]
    seed.shuffle(times)
    case = read_cases(published_files()[0], "analytic").cases[0]
    compared = [
        Compared(replace(case, latency_s=reference, oom=False), Estimate(latency_s=answer))
        for answer, reference in times
    ]
    told = figures(compared)
    assert told.items() >= pair_errors(pairs).to_dict().items()
    assert told["compared"] == len(times)
    assert tuple(pair_errors(pairs).to_dict()) == ERROR_FIGURES


def test_rows_that_are_no_answer_count_in_no_error(measure):
    reference = measure(1.0)
    assert pair_errors([Pair(measure(2.0, valid=False), reference)]) is None
    assert pair_errors([Pair(replace(reference, status="oom", latency_s=None), reference)]) is None
    assert pair_errors([]) is None


def test_what_an_imported_row_leaves_unstated_is_asked_by_the_defaults():
    imported = a_row(source="published", engine="imported", weight_dtype="bfloat16", act_dtype="", kv_dtype="")
    imported = replace(imported, partitioner=None, point_id="imported")
    usual = replace(a_row(source="predicted", engine="analytic"), point_id="usual")
    usual = replace(usual, weight_dtype="bfloat16", act_dtype="bfloat16", kv_dtype="bfloat16", partitioner="manual")
    other = replace(usual, engine="other", kv_dtype="int8", point_id="other")
    assert [pair.answer.point_id for pair in pair_up([imported, usual, other])] == ["usual"]
