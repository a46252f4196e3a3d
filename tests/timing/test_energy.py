"""Energy by NVML, of which a module stands in whose GPUs draw what is known."""

import sys
import time
from functools import partial
from types import SimpleNamespace

import pytest
from builders.nvml import Nvml, stand_in
from builders.points import point
from test_timing import Script

from bench.measure.timing import TimingConfig, measure
from bench.run.make_row import PointTask
from bench.run.worker import answer
from engines.core.engine import Facts, Runner, Stage, Verification
from engines.host import nvml as under_test
from engines.host.nvml import POWER, TOTAL_ENERGY, energy_meter


@pytest.fixture
def machine(monkeypatch):
    """``machine(…)``: the library, as if these GPUs were here."""
    return partial(stand_in, monkeypatch)


@pytest.mark.parametrize(
    ("visible", "count", "watts"),
    [(None, 2, 300.0), (None, 4, 1000.0), ("3,0", 1, 400.0), ("3,0", 2, 500.0), ("GPU-1,GPU-2", 2, 500.0)],
)
def test_the_gpus_of_the_process_are_counted_and_no_others(machine, monkeypatch, visible, count, watts):
    now = [0.0]
    nvml = machine([100.0, 200.0, 300.0, 400.0], clock=lambda: now[0])
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    meter = energy_meter(count)
    assert meter.source == TOTAL_ENERGY
    before, now[0] = meter.joules(), 10.0
    assert meter.joules() - before == pytest.approx(10 * watts)
    meter.close()
    assert nvml.open == 0


@pytest.mark.parametrize(
    ("visible", "names", "count"),
    [
        ("MIG-1,MIG-2", None, 1),
        ("0,7", None, 1),
        ("", None, 1),
        (None, None, 5),
        (None, ["NVIDIA L4", "NVIDIA H100 80GB HBM3", "NVIDIA L4", "NVIDIA L4"], 1),
    ],
)
def test_gpus_that_nobody_can_tell_have_no_energy(machine, monkeypatch, visible, names, count):
    nvml = machine([100.0] * 4, names=names)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert energy_meter(count) is None
    assert nvml.open == 0
    if names is not None:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        energy_meter(1).close()


def test_without_the_library_or_a_driver_there_is_none(machine, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy_meter(1) is None
    nvml = machine([100.0])
    nvml.nvmlInit = lambda: (_ for _ in ()).throw(Nvml.NVMLError("Driver Not Loaded"))
    assert energy_meter(1) is None


def test_gpus_without_a_counter_have_their_power_integrated(machine, monkeypatch):
    """100 W that rise by 10 W every second are 1,500 J after 10 s, however often they are read."""
    nvml = machine([100.0], counts=False)
    now = [0.0]
    monkeypatch.setattr(under_test, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(under_test, "POLL_S", 1e9)  # no reading but the test's
    meter = energy_meter(1)
    assert meter.source == POWER
    for second in (1.0, 1.5, 4.0, 10.0):
        now[0], nvml.watts[0] = second, 100.0 + 10 * second
        meter.joules()
    assert meter.joules() == pytest.approx(1500.0)
    meter.close()
    assert nvml.open == 0


def test_mean_power_is_of_the_samples_alone():
    """A device that draws 500 W, and drew 50 W in the warm-up, by a clock that only runs of the program advance."""
    script = Script(decode=lambda run: 0.5)
    warm_up_s = 6 * 0.5

    def counter():
        return 50.0 * min(script.now, warm_up_s) + 500.0 * max(0.0, script.now - warm_up_s)

    samples = measure(script, TimingConfig(min_time_s=1.0), script.clock, joules=counter)
    assert samples.mean_power_w == pytest.approx(500.0)
    assert measure(Script(decode=lambda run: 0.5), TimingConfig(), script.clock).mean_power_w is None


class SteadyProgram:
    """A decode that takes no time to speak of, on devices that draw what the meter says."""

    compile_s = 0.0
    stages = (Stage("decode", lambda: time.sleep(0.001)),)

    def verify(self):
        return Verification(ok=True, max_relative_error=0.0, tolerance=1.0, against="itself")

    def facts(self):
        return Facts(peak_flops_per_s=1e15, peak_source="the test")

    def close(self):
        pass


class SteadyEngine(Runner):
    name, source, code = "jax", "measured", ("jax",)

    def program_id(self, point):
        return "one"

    def prepare(self, point):
        return SteadyProgram()


@pytest.mark.parametrize(("hw", "measured"), [("h100-80gb", True), ("tpu-v4", False)])
def test_a_measured_row_of_gpus_has_their_energy(machine, hw, measured):
    """Two GPUs of 300 W: 600 W for as long as the row's latency."""
    nvml = machine([300.0, 300.0], clock=time.perf_counter)
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda handle: 1000 * 300.0 * time.perf_counter()
    of = point("palm-8b", hw, engine="jax", phase="decode", num_chips=2, batch_size=2, input_len=8, output_len=4)
    config = TimingConfig(min_time_s=0.0, max_time_s=0.1, min_samples=2, max_samples=3)
    row = answer(SteadyEngine(), PointTask(point=of, point_id="x", source="measured", sweep=None), config)
    assert row.status == "ok", row.error
    if measured:
        assert row.energy_source == TOTAL_ENERGY
        assert row.energy_j == pytest.approx(600.0 * row.latency_s, rel=0.02)
        assert row.details["mean_power_w"] == pytest.approx(600.0, rel=0.02)
    else:
        assert (row.energy_j, row.energy_source) == (None, None)
    assert nvml.open == 0
