"""Metrics: numbers that can be checked by hand, the published MFU columns, and the laws that hold for any point."""

import csv
from dataclasses import replace
from functools import partial
from importlib.resources import files

import pytest
from builders.points import point as build_point
from hypothesis import given
from hypothesis import strategies as st

from bench.rows.metrics import METRICS, derive
from bench.rows.min_hbm_bytes import min_hbm_bytes
from engines.core.errors import InvalidRequest
from engines.core.row import ROW_FIELDS

DATA = files("engines.published") / "data"


point = partial(
    build_point,
    model="palm-540b",
    hw="tpu-v4",
    engine="published",
    phase="decode",
    num_chips=64,
    batch_size=64,
    input_len=2048,
    output_len=1,
    weight_dtype="int8",
)


def rows(name):
    with (DATA / name).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def asked_by(cells):
    lengths = {key: int(cells[key]) for key in ("num_chips", "batch_size", "input_len", "output_len")}
    degrees = {key: int(cells[key]) for key in ("tensor_parallel", "pipeline_parallel") if cells[key]}
    names = {key: cells[key] for key in ("model", "hw", "phase", "weight_dtype")}
    return point(**lengths, **degrees, **names)


def mfu_of(cells):
    asked = asked_by(cells)
    found = derive(asked, latency_s=float(cells["latency_s"]), peak_flops_per_s=asked.chip.peak(asked.act_dtype))
    return found["mfu"]


def test_a_decode_step_by_hand():
    # 64 sequences, one token each, 28.5 ms: 2245.6 tokens/s; 64 chips · 28.5 ms / 64 tokens = 28.5 chip-ms a token.
    found = derive(point(), latency_s=0.0285, peak_flops_per_s=275e12, hbm_bytes_per_s=1.2e12)
    assert found["latency_s"] == 0.0285
    assert found["step_time_s"] == 0.0285
    assert found["tokens_per_s"] == pytest.approx(2245.61, rel=1e-5)
    assert found["tokens_per_s_per_chip"] == pytest.approx(2245.61 / 64, rel=1e-5)
    assert found["tokens_per_s_per_user"] == pytest.approx(35.0877, rel=1e-5)
    assert found["cost_chip_s_per_token"] == pytest.approx(0.0285)
    assert found["mfu"] == pytest.approx(2245.61 * 1.08e12 / (64 * 275e12), rel=1e-5)
    assert found["ttft_s"] is None
    assert found["tpot_s"] is None


def test_a_generate_point_by_hand():
    # Table D.3, batch 64: 0.501 s of prefill and 20 steps in 0.717 s.
    asked = point(phase="generate", input_len=60, output_len=20, weight_dtype="bfloat16")
    found = derive(asked, latency_s=1.218, prefill_s=0.501, decode_s=0.717)
    assert found["ttft_s"] == 0.501
    assert found["step_time_s"] == pytest.approx(0.717 / 20)
    assert found["tpot_s"] == pytest.approx(0.717 / 19)
    assert found["tokens_per_s"] == pytest.approx(64 * 80 / 1.218)
    assert found["mfu"] is None
    assert found["mbu"] is None
    # One stage known tells the other.
    assert derive(asked, latency_s=1.218, prefill_s=0.501) == pytest.approx(found)
    assert derive(asked, latency_s=1.218, decode_s=0.717) == pytest.approx(found)


@pytest.mark.parametrize(("first_token", "steps"), [("prefill", 19), ("decode", 20), ("auto", 20)])
@pytest.mark.parametrize("hw", ["a100-80gb", "tpu-v4"])
def test_a_step_is_a_share_of_the_steps_after_the_prefill(hw, first_token, steps):
    asked = point(phase="generate", hw=hw, input_len=60, output_len=20, first_token=first_token)
    assert derive(asked, latency_s=2.0, prefill_s=0.1)["step_time_s"] == pytest.approx(1.9 / steps)


def test_mfu_counts_the_layers_that_tokens_passed():
    # Tokens that leave after 29.5 of 118 layers leave out three quarters of the layers' matmuls, of steps alone.
    asked = point(phase="generate", input_len=60, output_len=20, exit_threshold=0.5, exit_every=59, exit_rate=0.5)
    of_layers = asked.model.matmul_flops_per_token - 2 * asked.model.head_params
    flops = 64 * (80 * 1.08e12 - 20 * 0.75 * of_layers)
    found = derive(asked, latency_s=1.0, peak_flops_per_s=275e12, mean_layers=29.5)
    assert asked.model.num_layers == 118
    assert found["mfu"] == pytest.approx(flops / (64 * 275e12))
    whole = derive(asked, latency_s=1.0, peak_flops_per_s=275e12, mean_layers=118.0)
    assert whole == derive(asked, latency_s=1.0, peak_flops_per_s=275e12)


def test_a_prefill_point_is_one_stage():
    asked = point(phase="prefill", output_len=0)
    found = derive(asked, latency_s=0.5)
    assert found["ttft_s"] == 0.5
    assert found["step_time_s"] is None
    assert found["tokens_per_s_per_user"] is None


def test_one_output_token_has_no_time_between_tokens():
    asked = point(phase="generate", output_len=1)
    assert derive(asked, latency_s=1.0, prefill_s=0.5)["tpot_s"] is None


def test_paper_table_2():
    stated = [(cells, float(cells["mfu"])) for cells in rows("paper_table2.csv") if cells["mfu"]]
    assert [mfu for _, mfu in stated] == [0.43, 0.14, 0.76, 0.33]
    for cells, mfu in stated:
        # Latencies are printed to two or three digits: 0.29 s may be anything from 0.285 to 0.295.
        assert mfu_of(cells) == pytest.approx(mfu, abs=0.0125)


def test_paper_table_d3():
    stated = [(cells, float(cells["mfu"])) for cells in rows("paper_table_d3.csv") if cells["mfu"]]
    assert len(stated) == 36
    for cells, mfu in stated:
        # Its prefill latencies of 50 and 80 ms are printed to 10 ms, a tenth of the value.
        digits = 0.005 if "." in cells["latency_s"] and len(cells["latency_s"].split(".")[1]) == 2 else 0.0005
        rounding = mfu_of(cells) * digits / float(cells["latency_s"])
        assert mfu_of(cells) == pytest.approx(mfu, abs=0.0085 + rounding)


@pytest.mark.parametrize(("tensor_parallel", "stated", "batch"), [("32", 0.33, "256"), ("16", 0.46, "64")])
def test_fastertransformer_peaks_where_the_paper_says(tensor_parallel, stated, batch):
    # Pope et al. count input and output tokens, and the peaks are over all three length pairs: both at 128 in, 8 out.
    timed = [
        cells
        for cells in rows("fastertransformer_mt-nlg-530b.csv")
        if cells["tensor_parallel"] == tensor_parallel and cells["latency_s"]
    ]
    best = max(timed, key=mfu_of)
    assert mfu_of(best) == pytest.approx(stated, abs=0.005)
    assert (best["batch_size"], best["input_len"], best["output_len"]) == (batch, "128", "8")


def test_least_bytes_by_hand():
    # 4 layers, E=256, F=1024, H=8, K=1, D=32, V=1024, one norm a layer and one at the end, a scale each.
    matrices = 4 * (2 * 256 * 32 * 9 + 3 * 256 * 1024) + 1024 * 256
    vectors = 4 * 256 + 256
    asked = point(model="tiny", hw="cpu", num_chips=1, batch_size=2, input_len=10, output_len=4, weight_dtype="int8")
    # bf16 cache: steps see 10, 11, 12 and 13 cached tokens of two sequences.
    cache = 2 * (10 + 11 + 12 + 13) * (2 * 4 * 1 * 32) * 2
    assert min_hbm_bytes(asked) == 4 * (matrices + 2 * vectors) + cache
    prefill = replace(asked, phase="prefill")
    assert min_hbm_bytes(prefill) == matrices + 2 * vectors
    generate = replace(asked, phase="generate")
    assert min_hbm_bytes(generate) == min_hbm_bytes(prefill) + min_hbm_bytes(asked)


def test_tokens_that_the_point_does_not_tell():
    # 2 sequences of 10 tokens of which 8 are shared: 12 are read and kept; steps see 12, 14, 16 and 18.
    asked = point(model="tiny", hw="cpu", num_chips=1, batch_size=2, input_len=10, output_len=4)
    kept = 2 * 4 * 1 * 32 * 2
    assert min_hbm_bytes(asked) - min_hbm_bytes(asked, 12) == 4 * (20 - 12) * kept
    prefill = replace(asked, phase="prefill")
    plain, shared = (derive(prefill, latency_s=2.0, peak_flops_per_s=1e12, tokens=each) for each in (None, 12))
    assert (plain["tokens_per_s"], shared["tokens_per_s"]) == (10, 6)
    assert shared["mfu"] == pytest.approx(0.6 * plain["mfu"])
    assert shared["cost_chip_s_per_token"] == 2.0 / 12


def test_mbu_is_one_when_nothing_but_the_least_is_read():
    asked = point()
    seconds = min_hbm_bytes(asked) / (64 * 1.2e12)
    assert derive(asked, latency_s=seconds, hbm_bytes_per_s=1.2e12)["mbu"] == pytest.approx(1)


def test_rates_of_what_was_measured_beside_the_chip():
    # A copy and a matmul that reach 0.8 of the datasheet: half of the one is 0.625 of the other.
    asked = point()
    sheet = {"peak_flops_per_s": 275e12, "hbm_bytes_per_s": 1.2e12}
    seconds = 2 * min_hbm_bytes(asked) / (64 * 1.2e12)
    plain = derive(asked, latency_s=seconds, **sheet)
    found = derive(asked, latency_s=seconds, **sheet, matmul_flops_per_s=220e12, copy_bytes_per_s=0.96e12)
    assert found["mbu"] == plain["mbu"] == pytest.approx(0.5)
    assert found["mbu_of_copy"] == pytest.approx(0.625)
    assert found["mfu_of_matmul"] == pytest.approx(found["mfu"] * 1.25)
    assert plain["mbu_of_copy"] is plain["mfu_of_matmul"] is None


@given(
    latency_s=st.floats(1e-6, 1e4),
    batch_size=st.integers(1, 1024),
    phase=st.sampled_from(["prefill", "decode", "generate"]),
    factor=st.floats(1.1, 10),
)
def test_rates_fall_as_time_grows_and_cost_is_their_inverse(latency_s, batch_size, phase, factor):
    asked = point(phase=phase, batch_size=batch_size, input_len=64, output_len=8)
    peaks = {"peak_flops_per_s": 275e12, "hbm_bytes_per_s": 1.2e12}
    fast, slow = (derive(asked, latency_s=seconds, **peaks) for seconds in (latency_s, latency_s * factor))
    for name in ("tokens_per_s", "tokens_per_s_per_chip", "mfu", "mbu"):
        assert fast[name] == pytest.approx(slow[name] * factor)
    assert fast["cost_chip_s_per_token"] * fast["tokens_per_s_per_chip"] == pytest.approx(1)


@pytest.mark.parametrize("key", ["latency_s", "prefill_s", "decode_s", "peak_flops_per_s", "hbm_bytes_per_s"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_figure_that_is_not_positive_is_refused(key, value):
    with pytest.raises(InvalidRequest, match=key):
        derive(point(), **({"latency_s": 1.0} | {key: value}))


def test_the_registry_names_keys_of_a_row():
    assert set(METRICS) <= ROW_FIELDS
    assert all(name == metric.name and metric.formula for name, metric in METRICS.items())
    derived = {name for name, metric in METRICS.items() if metric.compute is not None}
    assert set(derive(point(), latency_s=1.0)) == derived


def test_tables_scale_and_rows_do_not():
    assert METRICS["mfu"].title == "MFU (%)"
    assert METRICS["mfu"].show(0.4325) == "43.2"
    assert METRICS["step_time_s"].show(0.0285) == "28.5"
    assert METRICS["mfu"].show(None) == ""
    assert METRICS["mfu"].show(float("nan")) == ""
