"""Samples of several processes: one time of all, and what the processes differ by."""

from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measure.processes import common_median, spread, summarise_processes
from bench.measure.stats import summarise
from bench.measure.timing import TimingConfig

CONFIG = TimingConfig(bootstrap_resamples=200)
samples = st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=12)


@given(samples)
def test_one_process_is_summarised_as_ever(times):
    expected = summarise(times, CONFIG.ci_level, CONFIG.bootstrap_resamples, CONFIG.seed)
    assert summarise_processes([times], CONFIG) == expected
    assert spread([times]) is None


@given(st.lists(samples, min_size=2, max_size=4))
def test_each_process_counts_once(processes):
    found = summarise_processes(processes, CONFIG)
    assert found.median == common_median(processes) == median(median(each) for each in processes)
    assert found.n == sum(map(len, processes))
    assert found.min <= found.ci_low <= found.ci_high <= found.max
    longer = [processes[0] * 3, *processes[1:]]  # whoever sampled longer has no more say
    assert summarise_processes(longer, CONFIG).median == found.median


def test_numbers_by_hand():
    """Medians 1, 2 and 3 s: their median is 2 s, their standard deviation 1 s, so they differ by half."""
    processes = [[1.0, 1.0, 1.0], [2.0, 2.0], [3.0]]
    assert common_median(processes) == 2.0
    assert spread(processes) == pytest.approx(0.5)


def test_the_interval_is_of_processes_and_not_of_samples():
    """A thousand samples of each of three processes that differ by 20% say no more than three numbers do."""
    generator = np.random.default_rng(1)
    processes = [list(center + 1e-3 * generator.standard_normal(1000)) for center in (0.8, 1.0, 1.2)]
    found = summarise_processes(processes, CONFIG)
    alone = summarise_processes([processes[1]], CONFIG)
    assert found.ci_high - found.ci_low > 0.3
    assert alone.ci_high - alone.ci_low < 1e-3
