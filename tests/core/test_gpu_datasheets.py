"""GPUs: figures that agree with each other, dense and one way, and sentences where a datasheet is silent."""

from dataclasses import replace

import pytest
from builders.points import point

from bench.cli.main import main as shardbench
from bench.rows.store import Store
from bench.sweep.catalog import hw_of, load_chip, names
from engines.analytic.constants import CALIBRATED_FOR, STORED, calibrated_name
from engines.analytic.engine import AnalyticEngine
from engines.compiled.target.gpu import gpu_target_of
from engines.core.chip import tensor_core_clock_hz
from engines.core.errors import InvalidRequest, Unsupported
from engines.core.slice import slice_of
from engines.published.table import published_rows

GPUS = [name for name in names("hw") if load_chip(name).kind == "gpu"]
WITH_CUDA = [name for name in GPUS if load_chip(name).cuda is not None]
CLOCKS_HZ = {"a100": 1.41e9, "h100-80gb": 1.83e9, "h200": 1.83e9, "rtx-4090": 2.52e9, "rtx-3090": 1.695e9}
"""Boost clocks of datasheets and whitepapers."""


def test_the_chips_that_people_have_are_there():
    asked = {"a100-40gb", "a100-pcie", "h100-pcie", "gh200", "l40s", "gb200", "mi300x", "rtx-4090"}
    assert asked <= set(GPUS)


def test_no_device_name_is_two_chips():
    stated = [name for hw in GPUS for name in load_chip(hw).device_names]
    assert len(stated) == len(set(stated))
    assert all(hw_of(name) == hw for hw in GPUS for name in load_chip(hw).device_names)


@pytest.mark.parametrize("name", WITH_CUDA)
def test_the_float16_peak_is_dense(name):
    """With the sparse figure for the dense one, the clock would be twice what the chip has."""
    clock = tensor_core_clock_hz(load_chip(name), load_chip(name).cuda)
    assert 1.3e9 < clock < 2.6e9
    for start, stated in CLOCKS_HZ.items():
        if name.startswith(start):
            assert clock == pytest.approx(stated, rel=0.01)


@pytest.mark.parametrize("name", GPUS)
def test_narrower_formats_are_twice_as_fast_or_more(name):
    peaks = load_chip(name).peak_flops_per_s
    assert peaks.get("bfloat16", peaks["float16"]) == peaks["float16"]
    for narrow in ("float8_e4m3", "int8"):
        if narrow in peaks:
            assert peaks[narrow] / peaks["float16"] == pytest.approx(
                4 if name.startswith("rtx") and narrow == "int8" else 2, rel=0.015
            )


@pytest.mark.parametrize("name", GPUS)
def test_what_a_datasheet_does_not_say_is_refused_in_a_sentence(name):
    chip = load_chip(name)
    engine = AnalyticEngine()

    def answer(num_chips):
        asked = {"phase": "decode", "batch_size": 8, "input_len": 128, "output_len": 8, "weight_dtype": "float16"}
        [found] = engine.estimate([point("gpt-1.3b", chip, engine="analytic", num_chips=num_chips, **asked)])
        return found

    assert answer(1).status == "ok"
    assert answer(1).facts.details["calibration"]["constants"] == calibrated_name(chip)
    for num_chips, figure in (
        (2, "node_bytes_per_s" if chip.node_size > 1 else "network_bytes_per_s"),
        (2 * chip.node_size, "network_bytes_per_s"),
    ):
        found = answer(num_chips)
        if getattr(chip, figure) is None:
            assert found.status == "unsupported"
            remedy = f"add it to conf/hw/{name}.yaml, or give +hw.{figure}="
            assert found.error == f"hw={name}: {figure} is not known; {remedy}"
        else:
            assert found.status == "ok"
    if chip.cuda is None:
        with pytest.raises(Unsupported, match=f"hw={name}.*CUDA"):
            gpu_target_of(slice_of(chip, 1))


@pytest.mark.parametrize("name", GPUS)
def test_under_a_power_limit_nothing_is_predicted_and_the_point_is_another(name):
    full, capped = load_chip(name), replace(load_chip(name), power_limit_w=100)
    asked = {"phase": "decode", "batch_size": 8, "input_len": 128, "output_len": 8, "weight_dtype": "float16"}
    points = [point("gpt-1.3b", chip, engine="analytic", num_chips=1, **asked) for chip in (full, capped)]
    assert points[0].fingerprint("x") != points[1].fingerprint("x")
    assert [each.status for each in AnalyticEngine().estimate(points)] == ["ok", "unsupported"]
    assert AnalyticEngine().estimate(points)[1].error.startswith("hw.power_limit_w=100: no datasheet says how fast")
    with pytest.raises(Unsupported, match="power_limit_w"):
        gpu_target_of(slice_of(capped, 1))


@pytest.mark.parametrize(
    ("name", "watts"), [("h100-80gb", 0), ("h100-80gb", "much"), ("h100-80gb", True), ("tpu-v4", 100)]
)
def test_a_power_limit_is_watts_of_a_gpu(name, watts):
    with pytest.raises(InvalidRequest, match=r"hw\.power_limit_w"):
        replace(load_chip(name), power_limit_w=watts)


def test_the_command_line_names_the_row_by_its_power_limit(tmp_path, capsys):
    words = ["hw=h100-80gb", "hw.power_limit_w=450", "model=llama-3-8b", "num_chips=1", "engine=analytic"]
    shardbench(["run", *words, f"results_dir={tmp_path}", "print=none"])
    [row] = Store(tmp_path).load()
    assert (row.hw, row.status) == ("h100-80gb+power_limit_w=450", "unsupported")
    assert "hw.power_limit_w=450" in row.error


def test_only_chips_with_rows_have_constants_of_their_own():
    own = {path.stem for path in STORED.glob("*.yaml")}
    with_rows = {row.stated["hw"] for row in published_rows() if row.latency_s is not None}
    assert own & set(GPUS) == with_rows & set(GPUS)
    assert {CALIBRATED_FOR["gpu"], CALIBRATED_FOR["tpu"]} <= own
