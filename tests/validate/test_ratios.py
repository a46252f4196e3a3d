"""Two predictions of one stack are told apart by how well ratios of its rows are predicted."""

import math
from dataclasses import replace

import pytest
from builders.points import point
from hypothesis import given
from hypothesis import strategies as st

from bench.validate.case import Case
from bench.validate.ratios import LEAST_PAIRS, error_of_ratios, ratio_error


def case(batch_size=1, reference="a table", **changes):
    sizes = {"num_chips": 8, "phase": "decode", "input_len": 64, "output_len": 8}
    asked = point("gpt-20b", "a100-80gb", engine="analytic", batch_size=batch_size, **sizes)
    made = Case(file="a.csv", line=1, system="s", reference=reference, point=asked, latency_s=1.0, oom=False)
    return replace(made, **changes)


CASE = case()


@given(st.lists(st.floats(-0.5, 0.5), min_size=15, max_size=20), st.floats(-2, 2))
def test_what_a_whole_stack_is_off_by_does_not_count(errors, common):
    alone = error_of_ratios([(CASE, error) for error in errors])
    shifted = error_of_ratios([(CASE, error + common) for error in errors])
    assert shifted.factor == pytest.approx(alone.factor)
    assert 1 <= alone.factor <= math.exp(max(errors) - min(errors)) * (1 + 1e-12)


def test_a_constant_error_of_each_stack_leaves_all_ratios_exact():
    errors = [(case(reference=f"table {stack}"), 0.3 * stack) for stack in range(4) for _ in range(10)]
    found = error_of_ratios(errors)
    assert (found.factor, found.pairs, found.groups) == (1.0, 4 * 45, 4)
    assert found.told_apart(1.001)


def test_the_factor_is_what_four_of_five_pairs_stay_within():
    # 20 rows at 0 and one at log(2): 20 of the 210 pairs are off by 2.
    few = error_of_ratios([(CASE, 0.0)] * 20 + [(CASE, math.log(2))])
    assert few.factor == 1.0
    # 10 at 0 and 10 at log(2): 100 of 190 pairs are.
    many = error_of_ratios([(CASE, 0.0)] * 10 + [(CASE, math.log(2))] * 10)
    assert many.factor == pytest.approx(2)
    assert [many.told_apart(ratio) for ratio in (1.9, 1 / 1.9, 2.1, 1 / 2.1)] == [False, False, True, True]


def test_too_few_pairs_tell_nothing():
    rows = 2
    while math.comb(rows + 1, 2) < LEAST_PAIRS:
        rows += 1
    assert error_of_ratios([(CASE, 0.1)] * rows) is None
    assert error_of_ratios([(CASE, 0.1)] * (rows + 1)) is not None
    assert error_of_ratios([(case(batch_size=size), 0.1) for size in range(1, 30)], lambda each: each.batch) is not None


@pytest.mark.parametrize("kind", ["gpu", "tpu"])
def test_published_rows_tell_it_for_both_kinds_of_chip(kind):
    known = ratio_error(kind)
    alike = ratio_error(kind, same_workload=True)
    assert 1 < known.factor < 2
    assert alike.pairs <= known.pairs
