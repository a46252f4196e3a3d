"""What number formats cost in closed form: bytes of groups and heads, the wire, and the peak of each matmul."""

import pytest
from builders.points import point as build_point
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.rows.min_hbm_bytes import min_hbm_bytes
from engines.analytic.engine import AnalyticEngine
from engines.analytic.grid import record
from engines.core.dtypes import BYTES_PER_ELEMENT, WEIGHTS_ALONE

FORMATS = list(BYTES_PER_ELEMENT)
OF_HEADS = [each for each in FORMATS if each not in WEIGHTS_ALONE]
H100 = {"hw": "h100-80gb", "num_chips": 4, "tensor_parallel": 4}
TABLE = 128256 * 8192
MATRICES = 80 * (2 * 8192 * 128 * (64 + 8) + 3 * 8192 * 28672)


def point(**changes):
    asked = {
        "model": "llama-3-70b", "hw": "h100-80gb", "num_chips": 4, "engine": "analytic", "phase": "decode",
        "batch_size": 16, "input_len": 1000, "output_len": 8, **changes,
    }  # fmt: skip
    return build_point(**asked)


def answer(**changes):
    (found,) = AnalyticEngine().estimate([point(**changes)])
    return found


def test_bytes_of_awq_by_hand():
    # Four bits, and of every 128 weights a scale of 16 bits and a zero point of 4.
    awq = point(weight_dtype="int4", weight_group_size=128)
    assert awq.weight_bytes == 0.5 + 2.5 / 128 == 0.51953125
    assert awq.head_dtype == "bfloat16"
    # Both tables are on every rank, as FasterTransformer has them.
    weights = answer(weight_dtype="int4", weight_group_size=128).facts.weights_bytes
    assert weights == MATRICES / 4 * 0.51953125 + 2 * TABLE * 2


def test_mbu_counts_scales_zero_points_and_the_head_as_they_are_stored():
    norms = (2 * 80 + 1) * 8192
    cached = 8 * (16 * 1000 + 16 * 7 / 2) * 2 * 80 * 8 * 128 * 2
    expected = 8 * (MATRICES * 0.51953125 + TABLE * 2 + norms * 2) + cached
    assert min_hbm_bytes(point(weight_dtype="int4", weight_group_size=128)) == pytest.approx(expected, rel=1e-12)
    whole = min_hbm_bytes(point(weight_dtype="int4"))
    assert expected - whole == pytest.approx(8 * (MATRICES * 2.5 / 128 + TABLE * 1.5), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(weight=st.sampled_from(OF_HEADS), head=st.sampled_from(OF_HEADS), tpu=st.booleans())
def test_a_head_of_its_own_format_changes_its_own_bytes_alone(weight, head, tpu):
    where = {"hw": "tpu-v5p", "num_chips": 64} if tpu else H100
    # Where it fits or not: facts tell the bytes.
    own, both = (
        answer(weight_dtype=weight, act_dtype="bfloat16", batch_size=64, **where, **keys).facts
        for keys in ({"head_dtype": head}, {})
    )
    apart = BYTES_PER_ELEMENT[head] - BYTES_PER_ELEMENT[weight]
    tables = 2 * TABLE / (64 if tpu else 1)
    assert own.weights_bytes - both.weights_bytes == pytest.approx(tables * apart, abs=1)
    assert own.peak_hbm_bytes - both.peak_hbm_bytes == pytest.approx(tables * apart, abs=1)


@settings(max_examples=40, deadline=None)
@given(size=st.sampled_from([32, 64, 128, 256, 1024]), bits=st.sampled_from(["int4", "int8"]), tpu=st.booleans())
def test_smaller_groups_hold_more_bytes_and_take_longer(size, bits, tpu):
    where = {"hw": "tpu-v5p", "num_chips": 8} if tpu else H100
    smaller, larger, none = (
        answer(weight_dtype=bits, head_dtype="bfloat16", **where, **keys)
        for keys in ({"weight_group_size": size // 2}, {"weight_group_size": size}, {})
    )
    assert smaller.facts.weights_bytes > larger.facts.weights_bytes > none.facts.weights_bytes
    assert smaller.latency_s > larger.latency_s > none.latency_s
    assert smaller.facts.communication_s == larger.facts.communication_s


@pytest.mark.parametrize("where", [H100, {"hw": "tpu-7x", "num_chips": 8}])
def test_activations_of_eight_bits_are_sent_in_sixteen(where):
    narrow, wide = (
        answer(phase="prefill", weight_dtype="float8_e4m3", act_dtype=each, kv_dtype="bfloat16", **where)
        for each in ("float8_e4m3", "bfloat16")
    )
    assert narrow.facts.communication_s == wide.facts.communication_s > 0
    assert narrow.facts.peak_hbm_bytes == wide.facts.peak_hbm_bytes
    assert narrow.facts.memory_s == wide.facts.memory_s
    assert narrow.facts.compute_s < wide.facts.compute_s


def test_what_is_left_in_sixteen_bits_runs_at_that_peak():
    eight = {"weight_dtype": "float8_e4m3", "act_dtype": "float8_e4m3"}
    quantised, left = (record(point(**eight, **keys)) for keys in ({}, {"head_dtype": "bfloat16"}))
    assert quantised["peak"] == quantised["head_peak"] == 1978.9e12
    assert quantised["stream_peak"] == 989.4e12
    assert left["head_peak"] == left["stream_peak"] == 989.4e12


@pytest.mark.parametrize("hw", ["a100-80gb", "tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e"])
def test_a_chip_without_float8_matmuls_stores_them(hw):
    formats = {"weight_dtype": "float8_e4m3", "hw": hw, "num_chips": 16}
    refused = answer(**formats, act_dtype="float8_e4m3")
    assert refused.status == "unsupported"
    assert "no peak for float8_e4m3" in refused.error
    assert "act_dtype=bfloat16" in refused.error
    assert answer(**formats).facts.weights_bytes == answer(weight_dtype="int8", hw=hw, num_chips=16).facts.weights_bytes
