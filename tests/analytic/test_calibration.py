"""Calibration finds constants that made the times, and ships with what it says of itself."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from builders.points import point as build_point
from builders.published_files import published_files
from omegaconf import OmegaConf

from bench.cli.main import main as shardbench
from bench.sweep.catalog import load_chip
from bench.validate.data import read_all
from engines.analytic.calibration import PRIORS, STATED, errors_of, fit, leave_one_model_out
from engines.analytic.constants import BOUNDS, STORED, from_mapping, load, stored
from engines.analytic.grid import grid_of
from engines.analytic.predict import predict
from engines.core.errors import ShardbenchError
from engines.published.table import columns

pytestmark = pytest.mark.slow

CHIPS = {"tpu-v4": "tpu", "a100-80gb": "gpu"}


def rows(chip):
    cases = [
        case
        for case in read_all(published_files(), "analytic").cases
        if case.point.chip.name == chip and case.latency_s is not None
    ]
    return [case.point for case in cases], np.asarray([case.latency_s for case in cases])


@pytest.mark.parametrize("chip", CHIPS)
def test_shipped_constants_are_within_bounds_and_say_where_they_come_from(chip):
    content = stored(chip)
    constants = load(chip)
    fitted, told = set(PRIORS[CHIPS[chip]]), set(STATED[CHIPS[chip]])
    assert set(content["constants"]) == fitted | told
    assert set(content["fitted"]) == fitted
    assert set(content["stated"]) == told
    for name in fitted:
        bound = BOUNDS[name]
        value = getattr(constants, name)
        assert bound.low * 1.01 < value < bound.high * 0.99, name
        assert content["fitted"][name]["set_by"], name
    assert sum(content["rows"].values()) == content["residuals"]["rows"]


@pytest.mark.parametrize("chip", CHIPS)
def test_shipped_residuals_are_those_of_the_shipped_constants(chip):
    points, measured = rows(chip)
    with (STORED / f"{chip}.residuals.csv").open(encoding="utf-8", newline="") as lines:
        kept = np.asarray([float(row["error"]) for row in csv.DictReader(lines)])
    errors = errors_of(points, measured, load(chip))
    assert kept == pytest.approx(errors, abs=2e-3)
    assert stored(chip)["residuals"]["mape"] == pytest.approx(np.abs(errors).mean(), rel=0.02)


def test_constants_that_made_the_times_are_found_again():
    points, _ = rows("tpu-v4")
    grid = grid_of(points)
    times = predict(grid).cost.latency_s
    found = fit(points, times)
    assert np.abs(found.errors).max() < 0.02
    for name in ("matmul_efficiency", "hbm_efficiency"):
        assert found.fitted[name] == pytest.approx(getattr(load("tpu-v4"), name), rel=0.05)


def test_a_constant_that_ends_on_its_bound_is_refused():
    points, measured = rows("tpu-v4")
    with pytest.raises(ShardbenchError, match="bound"):
        fit(points, measured * 1000)


def test_rows_of_several_chips_are_refused():
    tpu, seconds = rows("tpu-v4")
    gpu, more = rows("a100-80gb")
    with pytest.raises(ShardbenchError, match="one chip"):
        fit([*tpu[:3], *gpu[:3]], np.concatenate([seconds[:3], more[:3]]))
    with pytest.raises(ShardbenchError, match="one chip"):
        fit([], np.empty(0))


def test_shares_of_what_sets_a_constant():
    points, measured = rows("tpu-v4")
    found = fit(points, measured)
    one_group = found.set_by(["all"] * len(points))
    assert all(shares == {"all": 1.0} for shares in one_group.values())
    by_phase = found.set_by([point.phase for point in points])
    assert max(by_phase["matmul_efficiency"], key=by_phase["matmul_efficiency"].get) == "prefill"
    assert max(by_phase["hbm_efficiency"], key=by_phase["hbm_efficiency"].get) == "decode"


def test_leaving_a_model_out_judges_rows_that_had_no_part():
    points, measured = rows("tpu-v4")
    held_out = leave_one_model_out(points, measured)
    assert {name: len(errors) for name, errors in held_out.items()} == {"mt-nlg-530b": 9, "palm-540b": 33}
    for name, errors in held_out.items():
        assert np.abs(errors).mean() == pytest.approx(stored("tpu-v4")["leave_one_model_out"][name]["mape"], rel=0.05)
    only = [point.model.name == "palm-540b" for point in points]
    alone = [point for point, keep in zip(points, only, strict=True) if keep]
    assert leave_one_model_out(alone, measured[np.asarray(only)]) == {}


def test_the_command_writes_constants_that_can_be_read_again(tmp_path, capsys):
    out = tmp_path / "mine.yaml"
    assert shardbench(["calibrate", "hw=tpu-v4", f"out={out}", "print=json"]) == 0
    content = json.loads(capsys.readouterr().out)
    kept = OmegaConf.to_container(OmegaConf.load(out))
    assert from_mapping(kept["constants"]) == from_mapping(content["constants"]) == load("tpu-v4")
    assert content["leave_one_model_out"]["mt-nlg-530b"]["rows"] == 9
    with (tmp_path / "mine.residuals.csv").open(encoding="utf-8", newline="") as lines:
        errors = [abs(float(row["error"])) for row in csv.DictReader(lines)]
    assert np.mean(errors) == pytest.approx(content["residuals"]["mape"], abs=1e-4)


def test_a_chip_without_rows_cannot_be_calibrated(capsys):
    assert shardbench(["calibrate", "hw=h100-80gb"]) == 2
    assert "hw=h100-80gb: the data has no times for this chip" in capsys.readouterr().err


def test_own_rows_calibrate_another_chip(tmp_path, capsys):
    # Times made with half of the A100's layer cost pull the constant down, as far as its prior lets twelve rows.
    chip = load_chip("h100-80gb")
    lines = [",".join(columns())]
    points = [
        build_point(
            model="gpt-20b",
            hw=chip,
            engine="analytic",
            phase="generate",
            num_chips=ranks,
            batch_size=batch,
            input_len=60,
            output_len=20,
            weight_dtype="float16",
        )
        for ranks in (1, 2, 4, 8)
        for batch in (1, 8, 64)
    ]
    constants = replace(load("a100-80gb"), layer_s=load("a100-80gb").layer_s / 2)
    for of, seconds in zip(points, predict(grid_of(points, constants)).cost.latency_s, strict=True):
        ranks = of.num_chips
        asked = f"mine,mine,gpt-20b,h100-80gb,{ranks},{ranks},1,generate,{of.batch_size},60,20,float16"
        lines.append(f"{asked},,,{seconds},,ok")
    data = tmp_path / "mine.csv"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert shardbench(["calibrate", "hw=h100-80gb", f"data={data}", "print=json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["residuals"]["mape"] < 0.02
    assert content["constants"]["layer_s"] < 0.85 * load("a100-80gb").layer_s
    assert content["leave_one_model_out"] == {}
