"""measure() by a clock that only the script moves: no test here waits."""

import gc
import statistics

import pytest
from omegaconf import OmegaConf

from bench.measure.timing import Samples, TimingConfig, measure
from bench.sweep.catalog import conf_dir
from engines.core.engine import Stage
from engines.core.errors import InvalidRequest


class Script:
    """A program whose run number i takes ``durations(i)`` seconds a stage, and the clock that says so."""

    compile_s = 0.0

    def __init__(self, **durations):
        self.now = 0.0
        self.runs = 0
        self.order = []
        self.stages = [Stage(name, lambda name=name: self._run(name)) for name in durations]
        self._durations = durations

    def _run(self, name):
        self.order.append(name)
        self.now += self._durations[name](self.order.count(name) - 1)
        self.runs += name == self.stages[-1].name

    def clock(self):
        return self.now


def timed(script, **changes):
    settings = {"min_time_s": 0.0, "max_time_s": 1e9, **changes}
    return measure(script, TimingConfig(**settings), script.clock)


def test_a_steady_program_is_warm_at_once_and_sampled_as_little_as_allowed():
    script = Script(decode=lambda run: 0.5)
    samples = timed(script, min_samples=10)
    assert samples.warm
    assert samples.warmup_runs == 6  # two windows of three
    assert samples.stages == {"decode": [0.5] * 10}
    assert script.runs == 16


def test_warm_up_ends_when_a_window_equals_the_one_before():
    # 16 8 4 2 1 1 1 1 1 1: the first six runs with medians within a tenth are those from run 5 on, counted from 1.
    script = Script(decode=lambda run: max(1.0, 16.0 / 2**run))
    samples = timed(script)
    windows = [max(1.0, 16.0 / 2**run) for run in range(samples.warmup_runs)]
    assert statistics.median(windows[-3:]) == statistics.median(windows[-6:-3]) == 1.0
    assert samples.warmup_runs == 9  # 2 1 1 | 1 1 1 is the first such pair
    assert set(samples.totals) == {1.0}


def test_a_program_that_never_settles_is_not_warm():
    script = Script(decode=lambda run: 2.0**run)
    samples = timed(script, max_warmup_runs=12, max_samples=10)
    assert not samples.warm
    assert samples.warmup_runs == 12


def test_tolerance_bounds_the_change_from_below_and_above():
    for factor, warm in ((1.09, True), (1.11, False), (0.91, True), (0.89, False)):
        script = Script(decode=lambda run, factor=factor: 1.0 if run < 3 else factor)
        assert timed(script, max_warmup_runs=6).warm is warm


def test_stages_run_in_order_and_are_timed_apart():
    script = Script(prefill=lambda run: 2.0, decode=lambda run: 0.25)
    samples = timed(script)
    assert script.order[:4] == ["prefill", "decode", "prefill", "decode"]
    assert samples.stages["prefill"] == [2.0] * 10
    assert samples.stages["decode"] == [0.25] * 10
    assert samples.totals == [2.25] * 10


def test_sampling_goes_on_for_min_time():
    samples = timed(Script(decode=lambda run: 0.5), min_time_s=20.0)
    assert len(samples.totals) == 40


def test_sampling_stops_after_max_samples_and_max_time():
    assert len(timed(Script(decode=lambda run: 0.5), min_time_s=1e8, max_samples=25).totals) == 25
    slow = timed(Script(decode=lambda run: 10.0), min_time_s=0.0, max_time_s=45.0)
    assert len(slow.totals) == 5


def test_a_wide_interval_is_sampled_on_until_it_is_narrow():
    noisy = Script(decode=lambda run: 1.0 + 0.8 * ((run * 7919) % 11) / 10)
    few = timed(noisy, max_relative_ci=10.0, warmup_tolerance=10.0)
    noisy = Script(decode=lambda run: 1.0 + 0.8 * ((run * 7919) % 11) / 10)
    many = timed(noisy, max_relative_ci=0.1, warmup_tolerance=10.0)
    assert len(few.totals) == 10
    assert 10 < len(many.totals) < 200


def test_what_a_stage_raises_is_raised_on_with_the_collector_as_it_was():
    def fails(run):
        if run == 8:
            raise ZeroDivisionError("the ninth run")
        return 1.0

    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError, match="the ninth run"):
        timed(Script(decode=fails))
    assert gc.isenabled()


def test_no_garbage_is_collected_inside_a_run():
    inside = []
    timed(Script(decode=lambda run: inside.append(gc.isenabled()) or 1.0))
    assert inside
    assert not any(inside)


def test_totals_add_stages_run_by_run():
    assert Samples({"prefill": [1.0, 2.0], "decode": [10.0, 20.0]}, 0, True).totals == [11.0, 22.0]


def test_the_config_file_holds_every_key_with_its_default():
    content = OmegaConf.to_container(OmegaConf.load(conf_dir() / "timing" / "default.yaml"))
    assert TimingConfig(**content) == TimingConfig()
    assert list(content) == list(TimingConfig.__dataclass_fields__)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("min_samples", 0),
        ("min_samples", 2.5),
        ("min_samples", 300),
        ("max_samples", True),
        ("min_time_s", -1.0),
        ("min_time_s", 31.0),
        ("max_time_s", float("inf")),
        ("max_time_s", float("nan")),
        ("max_time_s", "30 s"),
        ("min_warmup_runs", 21),
        ("warmup_window", 0),
        ("ci_level", 1.0),
        ("ci_level", 95),
        ("bootstrap_resamples", 0),
        ("seed", -1),
    ],
)
def test_a_wrong_value_names_its_key(key, value):
    with pytest.raises(InvalidRequest, match=rf"timing\.{key}={'true' if value is True else value}"):
        TimingConfig(**{key: value})
