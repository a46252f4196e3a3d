"""The energy of programs that time themselves: of their timed part, on GPUs that are here."""

import sys
import time
from pathlib import Path

import pytest
from builders.nvml import stand_in
from builders.points import point as build_point

from bench.measure.timing import TimingConfig
from bench.run.load_engine import make_engine
from bench.run.make_row import PointTask
from bench.run.worker import answer
from bench.sweep.catalog import load_group
from engines.host.energy_trace import EnergyTrace
from engines.host.nvml import TOTAL_ENERGY

WATTS = 300.0


@pytest.fixture
def nvml(monkeypatch):
    """Eight GPUs that draw 300 W each."""
    return stand_in(monkeypatch, [WATTS] * 8, clock=time.monotonic)


def row_of(engine, of):
    return answer(engine, PointTask(point=of, point_id="x", source="measured", sweep=None), TimingConfig())


@pytest.mark.parametrize(
    ("timed_s", "stretch_s", "watts"),
    [(4.0, 4.0, 500.0), (2.0, 2.0, 500.0), (0.01, 1.0, 500.0), (5.0, 5.0, 412.0), (99.0, 9.0, 2270 / 9)],
)
def test_the_busiest_stretch_is_the_timed_part(timed_s, stretch_s, watts):
    """3 s at 50 W, 4 s at 500 W and 2 s at 60 W; 5 s hold the 4 and the one after, or the one before."""
    trace = EnergyTrace(TOTAL_ENERGY)
    for at in (0.0, 0.7, 1.9, 3.0, 4.4, 5.1, 7.0, 7.3, 9.0):
        trace.add(at, 50 * min(at, 3) + 500 * min(max(at - 3, 0), 4) + 60 * max(at - 7, 0))
    assert trace.stretch_s(timed_s) == pytest.approx(stretch_s)
    assert trace.watts(timed_s) == pytest.approx(watts)


def test_one_reading_tells_no_power():
    trace = EnergyTrace(TOTAL_ENERGY)
    assert trace.watts(1.0) is None
    trace.add(0.0, 5.0)
    assert trace.watts(1.0) is None


def vllm(program):
    config = {**load_group("engine", "vllm"), "program": program("vllm"), "nvidia_smi": program("nvidia_smi")}
    asked = build_point(
        "llama-2-7b", "a100-80gb", engine="vllm", phase="generate", num_chips=4, tensor_parallel=4, batch_size=2,
        input_len=8, output_len=4, weight_dtype="float16",
    )  # fmt: skip
    return row_of(make_engine(config), asked)


def test_a_program_s_row_has_the_energy_of_its_chips(nvml, program):
    row = vllm(program)
    assert row.status == "ok", row.error
    assert row.energy_source == TOTAL_ENERGY
    assert row.energy_j == pytest.approx(4 * WATTS * row.latency_s, rel=0.05)
    assert 0 < row.details["power_stretch_s"] <= max(1.0, sum(row.samples_s))
    assert nvml.open == 0


def test_without_nvml_there_is_none(monkeypatch, program):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    row = vllm(program)
    assert (row.status, row.energy_j, row.energy_source) == ("ok", None, None)


def test_a_server_that_is_started_here_has_the_energy_of_its_requests(nvml, program):
    words = [
        sys.executable,
        str(Path(__file__).parent / "stand_ins" / "openai_server.py"),
        "{port}",
        "4",
        "0.05",
        "0.01",
    ]
    config = {
        **load_group("engine", "serving"), "program": program("vllm_serve"), "url": None, "server": words,
        "arrivals": "constant", "nvidia_smi": program("nvidia_smi"),
    }  # fmt: skip
    asked = build_point(
        "llama-2-7b", "a100-80gb", engine="serving", phase="serve", num_chips=2, input_len=16, output_len=8,
        batch_size=0, request_rate_per_s=10.0, num_requests=200,
    )  # fmt: skip
    row = row_of(make_engine(config), asked)
    assert row.valid, row.error
    assert row.energy_source == TOTAL_ENERGY
    assert row.energy_j == pytest.approx(2 * WATTS * 200 / row.load["requests_per_s"], rel=0.05)
    assert nvml.open == 0
