"""Calibration finds constants that made the times, inherits where there are no rows, and ships what it says."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from builders.points import point as build_point
from builders.published_files import published_files
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.calibrate.published import BEST_TAKES, fit_published, runtime_constants
from bench.sweep.catalog import load_chip
from bench.sweep.runtimes import load_runtime
from bench.validate.data import read_all
from bench.validate.left_out import errors_by_line
from engines.analytic.calibration import MANY, Measured, fit, leave_one_source_out, log_predicted, weights_of
from engines.analytic.constants import BOUNDS, CALIBRATED_FOR, OWNER, STORED, from_mapping, of, stored
from engines.analytic.engine import AnalyticEngine
from engines.analytic.hierarchy import Priors, Rows, constants_with
from engines.analytic.priors import CHIPS, NCCL_RUNTIMES, RUNTIMES, USUAL
from engines.analytic.uncertainty import (
    FILE,
    LEVEL,
    TERM_OF,
    Z,
    held_by,
    interval,
    log_spread,
    place_of,
    spread_of,
    term_covariance,
    term_shares,
)
from engines.core.errors import ShardbenchError
from engines.core.runtime import shipped


def measured(runtime="tensorrt-llm", hw="h100-80gb", factor=1.0, source="mine", model="llama-3-8b", **changes):
    """Rows whose times are those that shardbench predicts, times ``factor``."""
    points = [
        build_point(
            model=model,
            hw=load_chip(hw),
            engine="analytic",
            runtime=load_runtime(runtime),
            phase="generate",
            first_token="prefill",
            num_chips=ranks,
            batch_size=batch,
            input_len=tokens,
            output_len=64,
            weight_dtype="float16",
            **changes,
        )
        for ranks in (1, 4)
        for batch in (1, 16, 128)
        for tokens in (128, 1024)
    ]
    times = [each.latency_s for each in AnalyticEngine().estimate(points)]
    return [
        Measured(point=of_row, latency_s=factor * seconds, source=source)
        for of_row, seconds in zip(points, times, strict=True)
        if seconds is not None
    ]


def test_constants_that_made_the_times_are_found_again():
    found = fit(measured())
    assert np.abs(found.errors).max() < 0.1
    assert np.abs(found.errors).mean() < 0.03


def test_a_runtime_without_rows_inherits_its_priors_and_a_chip_its_kinds_median():
    found = fit(measured())
    constants = found.constants("b200", "vllm")
    assert constants["layer_s"] == pytest.approx(RUNTIMES["vllm"]["layer_s"].value)
    assert constants["hbm_efficiency"] == pytest.approx(found.constants("gpu", "best")["hbm_efficiency"])
    # What is shared is inherited as fitted: NCCL's start, and how matmuls overlap their weights.
    assert constants["roofline_overlap"] == found.constants("h100-80gb", "tensorrt-llm")["roofline_overlap"]
    assert found.uncertainty("b200", "vllm", "hbm_efficiency") > found.uncertainty(
        "h100-80gb", "vllm", "hbm_efficiency"
    )


def test_rows_twice_as_slow_make_the_constants_slower():
    slower = fit(measured(factor=1.5))
    same = fit(measured())
    chip, runtime = "h100-80gb", "tensorrt-llm"
    assert np.abs(slower.errors).mean() < 0.3
    assert slower.constants(chip, runtime)["hbm_efficiency"] < same.constants(chip, runtime)["hbm_efficiency"]


def test_times_that_nothing_explains_are_refused():
    with pytest.raises(ShardbenchError, match="unit"):
        fit(measured(factor=1000.0))


def test_rows_of_several_kinds_or_none_are_refused():
    tpu = [replace(each, point=replace(each.point, chip=load_chip("tpu-v5e"), num_chips=1)) for each in measured()[:2]]
    for rows in ([*measured()[:2], *tpu], []):
        with pytest.raises(ShardbenchError, match="one kind"):
            fit(rows)


def test_what_sets_a_constant_adds_up_to_at_most_the_whole():
    rows = [*measured(source="one"), *measured(source="two", factor=1.1)]
    found = fit(rows)
    shares = found.set_by("h100-80gb", "tensorrt-llm", "hbm_efficiency")
    assert set(shares) <= {"one", "two"}
    assert sum(shares.values()) == pytest.approx(1.0, abs=0.02)
    assert found.set_by("h100-80gb", "tensorrt-llm", "stream_int4") == {}


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=5))
def test_a_big_source_counts_as_many_rows_at_most(sizes):
    sources = [str(index) for index, size in enumerate(sizes) for _ in range(size)]
    squares = weights_of(sources) ** 2
    for index, size in enumerate(sizes):
        total = squares[[source == str(index) for source in sources]].sum()
        assert total == pytest.approx(min(size, MANY))


def test_the_derivative_is_that_of_moving_one_parameter_alone():
    rows = [*measured(), *measured(runtime="gpt-fast", hw="a100-80gb", model="llama-3-8b")]
    model = Rows([row.point for row in rows], Priors())
    together = model.jacobian(model.mean)
    base = model.log_latency(model.mean)
    for column in range(0, len(model.names), 7):
        moved = model.mean.copy()
        moved[column] += 1e-4
        alone = (model.log_latency(moved) - base) / 1e-4
        assert together[:, column] == pytest.approx(alone, abs=1e-6), model.names[column]


def test_leaving_a_source_out_judges_rows_that_had_no_part():
    rows = [*measured(source="one"), *measured(source="two", factor=1.2)]
    one, two = leave_one_source_out(rows)
    assert (one.source, two.source) == ("one", "two")
    assert one.log_errors.mean() > 0 > two.log_errors.mean()
    assert leave_one_source_out(measured()) == []
    alone, variances = log_predicted(fit([row for row in rows if row.source == "one"]), rows[-3:])
    assert two.log_errors[-3:] == pytest.approx(alone - np.log([row.latency_s for row in rows[-3:]]))
    assert (variances > 0).all()


def test_every_prior_is_within_its_bounds_and_of_a_constant():
    every = [*USUAL.values(), *RUNTIMES.values(), *({n: s.median for n, s in c.items()} for c in CHIPS.values())]
    for priors in every:
        for name, prior in priors.items():
            assert BOUNDS[name].low <= prior.value <= BOUNDS[name].high, name
            assert prior.why
    assert all(OWNER[name] == "runtime" for priors in RUNTIMES.values() for name in priors)
    assert RUNTIMES.keys() >= NCCL_RUNTIMES
    assert set(BEST_TAKES) <= set(BOUNDS)


@pytest.mark.parametrize("chip", ["a100-80gb", "h100-80gb", "h200", "tpu-v4", "tpu-v5e", "tpu-v6e", "gpu", "tpu"])
def test_shipped_constants_of_chips_are_within_bounds_and_say_where_they_come_from(chip):
    content = stored(chip)
    assert set(content["about"]) == set(content["constants"])
    for name, value in content["constants"].items():
        assert BOUNDS[name].low <= value <= BOUNDS[name].high, name
        assert OWNER[name] == "chip"
    assert sum(content["rows"].values()) == content["residuals"]["rows"]
    assert set(content["leave_one_source_out"]) == set(content["rows"])


def test_shipped_runtimes_have_constants_that_are_known():
    for name in (*RUNTIMES, "best"):
        runtime = shipped(name)
        kind = runtime.limits.kinds[0]
        chip = load_chip((runtime.limits.chips or {"gpu": ["b200"], "tpu": ["tpu-v5p"]}[kind])[0])
        found = of(chip, runtime)
        assert found.layer_s > 0
        assert all(OWNER[constant] == "runtime" for constant in runtime.constants)


def test_shipped_errors_are_those_of_the_shipped_constants():
    """Two tables are enough to see that constants, forms and stored errors are of one fit."""
    files = [path for path in published_files() if path.name in ("tensorrt-llm_0.6.csv", "jax-llm-examples.csv")]
    with (STORED / "left_out.csv").open(encoding="utf-8", newline="") as lines:
        told = {(row["file"], int(row["line"])): float(row["error"]) for row in csv.DictReader(lines)}
    cases = [case for case in read_all(files, "analytic").cases if case.latency_s is not None]
    points = [replace(case.point, runtime=load_runtime(case.runtime)) for case in cases]
    for case, answer in zip(cases, AnalyticEngine().estimate(points), strict=True):
        assert answer.status == "ok", answer.error
        error = answer.latency_s / case.latency_s - 1
        assert error == pytest.approx(told[case.file, case.line], abs=0.015)
    assert len(errors_by_line()) == len(told)


def test_a_table_alone_can_be_fitted_as_the_published_ones_are():
    [path] = [path for path in published_files() if path.name == "gpt-fast.csv"]
    rows = [case for case in read_all([path], "analytic").cases if case.latency_s is not None]
    measured_rows = [
        Measured(point=replace(case.point, runtime=load_runtime(case.runtime)), latency_s=case.latency_s, source="x")
        for case in rows
    ]
    found = fit(measured_rows)
    assert np.abs(found.errors).mean() < 0.08


def test_constants_of_files_are_checked():
    with pytest.raises(ShardbenchError, match="layer_s=5"):
        from_mapping({"layer_s": 5})
    with pytest.raises(ShardbenchError, match="magic"):
        from_mapping({"magic": 1})
    with pytest.raises(ShardbenchError, match="missing"):
        from_mapping({"layer_s": 1e-5})


def test_what_a_runtime_does_not_state_is_the_best_ones():
    chip = load_chip("h100-80gb")
    bare = replace(shipped("best"), name="mine", constants={})
    assert of(chip, bare) == of(chip, shipped("best"))
    tpu = load_chip("tpu-v5e")
    assert of(tpu, shipped("best")) == of(tpu, shipped("xla"))
    assert of(tpu, bare) == of(tpu, shipped("xla"))


class TestIntervals:
    """How sure a prediction is."""

    def test_a_spread_holds_its_share_of_what_it_was_made_from(self):
        rows = [*measured(source="one"), *measured(source="two", factor=1.2), *measured(source="three", factor=0.9)]
        left_out = leave_one_source_out(rows)
        spread = spread_of(left_out)
        errors = np.concatenate([each.log_errors for each in left_out])
        widths = Z * np.sqrt(np.concatenate([each.variances for each in left_out]) + spread**2)
        assert np.mean(np.abs(errors) <= widths) >= LEVEL - 1 / len(errors)
        assert set(held_by(left_out)) == {"one", "two", "three"}
        # A runtime that no row has takes the spread of all.
        assert spread_of(left_out, "vllm") == spread

    def test_shares_add_up_and_terms_are_known(self):
        found = fit(measured())
        shares = term_shares(found.cost)
        assert shares.sum(axis=1) == pytest.approx(1.0)
        assert {name for names in TERM_OF.values() for name in names} <= set(BOUNDS)
        covariance = term_covariance(found, "h100-80gb", "tensorrt-llm")
        assert covariance == pytest.approx(covariance.T)
        assert (np.linalg.eigvalsh(covariance) > -1e-9).all()

    def test_an_interval_surrounds_its_time_and_is_wider_where_less_is_known(self):
        known, unknown = (measured(runtime=name)[0].point for name in ("tensorrt-llm", "vllm"))
        for answer in AnalyticEngine().estimate([known, unknown]):
            assert answer.latency_low_s < answer.latency_s < answer.latency_high_s
            # In logarithms the prediction is in the middle.
            assert answer.latency_s**2 == pytest.approx(answer.latency_low_s * answer.latency_high_s)

    def test_arrays_and_single_points_agree(self):
        rows = measured()
        found = fit(rows)
        places = np.asarray([place_of(row.point) for row in rows])
        low, high = interval(found.cost, places)
        spread = log_spread(found.cost, places)
        assert np.log(high / low) == pytest.approx(2 * Z * spread)

    def test_every_runtime_and_chip_has_an_uncertainty(self):
        content = stored(FILE)
        assert set(content) == set(CALIBRATED_FOR)
        for kind, about in content.items():
            for runtime in about["runtimes"].values():
                assert CALIBRATED_FOR[kind] in runtime["terms"]
                assert runtime["spread"] >= 0.02

    def test_left_out_sources_lie_within_as_often_as_promised(self):
        for about in stored(FILE).values():
            shares = about["held"]
            rows = {source: count for source, count in _rows_of_tables().items() if source in shares}
            held = sum(shares[source] * count for source, count in rows.items()) / sum(rows.values())
            assert 0.72 <= held <= 0.88


def _rows_of_tables():
    counts = {}
    for file, _ in errors_by_line():
        counts[file.removesuffix(".csv")] = counts.get(file.removesuffix(".csv"), 0) + 1
    return counts


@settings(max_examples=20, deadline=None)
@given(st.floats(0.5, 2.0))
def test_inherited_constants_follow_the_parameters(scale):
    priors = Priors()
    before = constants_with(priors, {}, "gpu", "b200", "lmdeploy")
    name = priors.value("gpu", "b200", "lmdeploy", "layer_s").names[0]
    after = constants_with(priors, {name: priors.mean[name] + np.log(scale)}, "gpu", "b200", "lmdeploy")
    assert after["layer_s"] == pytest.approx(scale * before["layer_s"])
    assert {key for key in before if before[key] != after[key]} <= {"layer_s"}


@pytest.mark.slow
def test_the_published_rows_give_the_shipped_constants(monkeypatch):
    # What it errs on sources left out sets no constant, and takes a fit each: the accuracy page has it.
    monkeypatch.setattr("bench.calibrate.published.leave_one_source_out", lambda *_: [])
    found = fit_published(read_all(published_files(), "analytic").cases)
    for each in found:
        for chip in each.chips:
            values = each.fit.constants(chip, "best")
            for name, value in stored(chip)["constants"].items():
                assert values[name] == pytest.approx(value, rel=0.02), name
        for runtime in each.own_runtimes:
            if runtime != "best":
                for name, about in runtime_constants(each, runtime).items():
                    assert about["value"] == pytest.approx(shipped(runtime).constants[name].value, rel=0.05, abs=1e-9)
