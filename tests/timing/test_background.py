"""What else the machine does beside a measurement, from what Linux and the driver would say."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measure import background as subject
from bench.measure.background import SHORTEST_S, Snapshot, between, snapshot, too_noisy
from bench.measure.timing import TimingConfig
from engines.host.nvidia import GpuState, gpu_states

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
times = st.floats(0, 1e3)


def moment(at_s=0.0, own_s=0.0, **spent):
    cores = dict.fromkeys(subject.TIMES, 0.0) | spent
    return Snapshot(at_s, cores, own_s, 0.5, (), None, ())


def test_two_cores_for_ten_seconds():
    """Of 20 core-seconds 8 are this process's, 4 others', 2 stolen, 6 idle: shares of 20% and 10%."""
    after = moment(at_s=10, own_s=8, user=9.0, system=3.0, idle=5.0, iowait=1.0, steal=2.0)
    found = between(moment(), after)
    assert found == {"load_average": 0.5, "steal_share": 0.1, "others_share": 0.2}
    config = TimingConfig(max_background_share=0.3)
    assert too_noisy(found, config) == []
    (reason,) = too_noisy(found, TimingConfig(max_background_share=0.29))
    assert "20%" in reason
    assert "timing.max_background_share=0.29" in reason


@given(st.fixed_dictionaries(dict.fromkeys(subject.TIMES, times)), times)
def test_shares_are_shares_whatever_the_counters_say(spent, own_s):
    found = between(moment(), moment(at_s=1, own_s=own_s, **spent))
    shares = [found.get(name, 0.0) for name in ("steal_share", "others_share")]
    assert all(0 <= share <= 1 for share in shares)
    assert sum(shares) <= 1.0002  # each rounded to four digits


def test_of_a_moment_nothing_is_said():
    assert "others_share" not in between(moment(), moment(at_s=SHORTEST_S / 2, user=0.01))


def test_it_reads_what_linux_says_of_the_cores_that_may_be_used(tmp_path, monkeypatch):
    monkeypatch.setenv("HOST_PROC", str(tmp_path / "proc"))
    monkeypatch.setenv("HOST_SYS", str(tmp_path / "sys"))
    monkeypatch.setattr(subject, "_allowed_cores", lambda: [0, 2])
    (tmp_path / "proc").mkdir()
    lines = ["cpu  9 9 9 9 9 9 9 9 0 0", *(f"cpu{core} {core + 1} 0 0 100 0 0 0 7 0 0" for core in range(3)), "intr 5"]
    (tmp_path / "proc/stat").write_text("\n".join(lines))
    (tmp_path / "proc/loadavg").write_text("1.25 1 1 2/300 4000\n")
    for core, clock, throttled in ((0, 3_000_000, 4), (2, 2_000_000, 1)):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{core}"
        (folder / "cpufreq").mkdir(parents=True)
        (folder / "cpufreq/scaling_cur_freq").write_text(f"{clock}\n")
        (folder / "thermal_throttle").mkdir()
        (folder / "thermal_throttle/core_throttle_count").write_text(f"{throttled}\n")
    found = snapshot()
    assert found.cores["user"] == pytest.approx(4 * TICK_S)
    assert found.cores["steal"] == pytest.approx(14 * TICK_S)
    assert found.load_average == 1.25
    assert found.throttled == 5
    assert between(found, found) == {"load_average": 1.25, "clock_hz": 2.5e9, "throttle_events": 0}


def test_a_system_that_says_nothing_makes_nothing_up():
    found = snapshot()  # the suite has HOST_PROC where nothing is
    assert between(found, found) == {}
    assert too_noisy({}, TimingConfig()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="descendants are listed on Linux")
def test_what_descendants_use_is_ones_own():
    before = subject._own_seconds()
    busy = "import time\nwhile time.process_time() < 0.2: pass\ninput()"
    child = subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE)
    try:
        while subject._own_seconds() - before < 0.2:
            assert child.poll() is None
    finally:
        child.communicate(b"\n")
    assert subject._own_seconds() - before >= 0.2  # also of a child that has ended


def test_other_users_of_a_gpu(tmp_path):
    """By the answers of a driver with two GPUs, the second one hot and somebody else's."""
    program = tmp_path / "nvidia-smi"
    program.write_text(
        """#!/bin/sh
case "$1" in
--query-compute-apps*) echo 'GPU-b, 4242';;
*) echo '0, GPU-a, 1980, 1980, Not Active, Not Active, Not Active, Not Active, Not Active'
   echo '1, GPU-b, 990, 1980, Not Active, Active, Not Active, Not Active, Active';;
esac
"""
    )
    program.chmod(0o755)
    quiet, hot = gpu_states(str(program))
    assert (quiet.processes, quiet.throttled_by) == ([], [])
    assert hot == GpuState(1, 990e6, 1980e6, ["hw_thermal_slowdown", "hw_power_brake_slowdown"], [4242])
    seen = Snapshot(0.0, {}, 0.0, None, (), None, (quiet, hot))
    found = between(seen, seen)
    assert [gpu["others"] for gpu in found["gpus"]] == [0, 1]
    assert found["gpus"][1]["throttled_by"] == ["hw_power_brake_slowdown", "hw_thermal_slowdown"]
    (reason,) = too_noisy(found, TimingConfig())
    assert reason.startswith("GPU 1 was used by 1 other processes")
    assert too_noisy(found, TimingConfig(max_gpu_others=1)) == []
