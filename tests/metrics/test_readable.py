"""Numbers in tables and sentences: as a reader wants them, whatever their size."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.rows.metrics import METRICS
from bench.run.progress import seconds
from engines.core.text import significant

PLAIN = st.floats(1e-4, 9.99e8)
METRIC = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


@given(PLAIN, st.integers(1, 6), st.sampled_from([1, -1]))
def test_a_number_has_no_exponent_and_its_digits(value, digits, sign):
    text = significant(sign * value, digits)
    assert re.fullmatch(r"-?\d{1,3}(,\d{3})*(\.\d*[1-9])?", text)
    assert float(text.replace(",", "")) == pytest.approx(sign * value, rel=0.5 * 10 ** (1 - digits), abs=0)


@METRIC
@given(value=PLAIN)
def test_no_metric_is_printed_with_an_exponent(metric, value):
    assert "e" not in metric.show(value / metric.scale)


@given(st.floats(1e-10, 9.99e8))
def test_times_have_no_exponent(value):
    text, unit = seconds(value).split()
    assert "e" not in text
    scale = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}[unit]
    assert float(text.replace(",", "")) * scale == pytest.approx(value, rel=0.005)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (1550, 3, "1,550"),
        (12345.6, 4, "12,346"),
        (0.00123456, 3, "0.00123"),
        (9.999, 3, "10"),
        (999.9999, 4, "1,000"),
        (1.5, 4, "1.5"),
        (100, 3, "100"),
        (0, 3, "0"),
        (-0.25, 3, "-0.25"),
        (2.5e10, 3, "2.5e+10"),
        (2.5e-7, 3, "2.5e-07"),
        (9.9999e-5, 3, "0.0001"),
    ],
)
def test_numbers(value, digits, text):
    assert significant(value, digits) == text
