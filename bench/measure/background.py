"""What else the machine did while a program was timed: other processes, stolen time, clocks, throttling, GPUs' users.

A steady load beside a measurement makes every sample slower by about the same, so that no interval of the samples shows
it; what is read here does. All of it is of the cores that this process may use, since others' work elsewhere takes
nothing but bandwidth. ``HOST_PROC`` and ``HOST_SYS`` name other places of ``/proc`` and ``/sys``, as where a container
mounts those of its host; a system that says nothing yields nothing.
"""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.measure.timing import TimingConfig
from engines.host.nvidia import GpuState, gpu_states

TIMES: Final = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
"""The first columns of a core's line in ``/proc/stat`` (proc(5)), in ticks."""
SHORTEST_S: Final = 0.25
"""The kernel counts in ticks of 10 ms, which say little of a shorter time."""
OWN_TIMES: Final = slice(11, 13)
"""Fields of ``/proc/PID/stat`` after the name: user and system time in ticks (14 and 15 in proc(5))."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counters of one moment, in seconds; ``cores`` are sums over the cores that this process may use.

    ``own_s`` is the processor time of this process and of its living and ended descendants. ``throttled`` counts how
    often those cores were slowed down because of heat.
    """

    at_s: float
    cores: Mapping[str, float]
    own_s: float
    load_average: float | None
    clocks_hz: Sequence[float]
    throttled: int | None
    gpus: Sequence[GpuState]


def snapshot(*, gpus: bool = False) -> Snapshot:
    """The counters now; with ``gpus``, those of NVIDIA's GPUs too, which takes a program and a tenth of a second."""
    allowed = _allowed_cores()
    return Snapshot(
        at_s=time.monotonic(),
        cores=_core_times(allowed),
        own_s=_own_seconds(),
        load_average=_load_average(),
        clocks_hz=_clocks(allowed),
        throttled=_throttled(allowed),
        gpus=gpu_states() if gpus else (),
    )


def between(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """What happened between two snapshots, as a row holds it; what the system did not say is left out.

    ``steal_share`` and ``others_share`` are shares of the time of all cores that this process may use: what a
    hypervisor gave to other machines, and what other processes took; left out of less than :data:`SHORTEST_S`.
    ``load_average`` is that of the minute before the samples.
    """
    found: dict[str, Any] = {}
    if before.load_average is not None:
        found["load_average"] = before.load_average
    spent = {name: after.cores[name] - before.cores[name] for name in before.cores if name in after.cores}
    total = sum(spent.values())
    if total > 0 and after.at_s - before.at_s >= SHORTEST_S:
        busy = total - spent["idle"] - spent["iowait"] - spent["steal"]
        own = after.own_s - before.own_s
        found["steal_share"] = round(spent["steal"] / total, 4)
        found["others_share"] = round(min(1.0, max(0.0, busy - own) / total), 4)
    if after.clocks_hz:
        found["clock_hz"] = sum(after.clocks_hz) / len(after.clocks_hz)
    if before.throttled is not None and after.throttled is not None:
        found["throttle_events"] = after.throttled - before.throttled
    if after.gpus:
        found["gpus"] = [
            {
                "index": gpu.index,
                "clock_hz": gpu.clock_hz,
                "max_clock_hz": gpu.max_clock_hz,
                "throttled_by": sorted({*gpu.throttled_by, *_throttled_by(before, gpu.index)}),
                "others": max(_others(gpu), *(_others(each) for each in before.gpus if each.index == gpu.index), 0),
            }
            for gpu in after.gpus
        ]
    return found


def too_noisy(background: Mapping[str, Any], config: TimingConfig) -> list[str]:
    """Sentences on what of the background is more than the keys of ``timing`` allow; empty if all is well."""
    reasons = []
    steal, others = background.get("steal_share", 0.0), background.get("others_share", 0.0)
    if round(steal + others, 4) > config.max_background_share:
        reasons.append(
            f"other processes took {others:.0%} and the hypervisor {steal:.0%} of the cores' time, more than "
            f"timing.max_background_share={config.max_background_share:g} together"
        )
    for gpu in background.get("gpus", ()):
        if gpu["others"] > config.max_gpu_others:
            reasons.append(
                f"GPU {gpu['index']} was used by {gpu['others']} other processes, more than "
                f"timing.max_gpu_others={config.max_gpu_others}"
            )
    return reasons


def _proc() -> Path:
    return Path(os.environ.get("HOST_PROC", "/proc"))


def _sys() -> Path:
    return Path(os.environ.get("HOST_SYS", "/sys")) / "devices/system/cpu"


def _allowed_cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _core_times(cores: Sequence[int]) -> dict[str, float]:
    """Seconds of each kind since boot, over all ``cores``."""
    wanted = {f"cpu{core}" for core in cores}
    sums = dict.fromkeys(TIMES, 0.0)
    try:
        with (_proc() / "stat").open(encoding="ascii", errors="replace") as file:
            # The cores come first; what follows them is long.
            for line in file:
                if not line.startswith("cpu"):
                    break
                name, *ticks = line.split()
                if name in wanted:
                    wanted.discard(name)
                    for kind, count in zip(TIMES, ticks, strict=False):
                        sums[kind] += int(count)
    except (OSError, ValueError):
        return {}
    hertz = os.sysconf("SC_CLK_TCK")
    return {} if wanted else {kind: ticks / hertz for kind, ticks in sums.items()}


def _own_seconds() -> float:
    """Processor seconds of this process, of its children that have ended, and of its living descendants."""
    own = os.times()
    ticks = sum(map(_ticks_of, _descendants(os.getpid())))
    return sum(own[:4]) + ticks / os.sysconf("SC_CLK_TCK")


def _descendants(pid: int) -> list[int]:
    """Ids of the living descendants of a process; none where the kernel does not list children."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(each) for each in children.read_text(encoding="ascii").split()]
    return found + [each for child in found for each in _descendants(child)]


def _ticks_of(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        return sum(map(int, text.rpartition(")")[2].split()[OWN_TIMES]))
    except (OSError, ValueError):
        return 0  # it ended meanwhile


def _load_average() -> float | None:
    try:
        return float((_proc() / "loadavg").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _clocks(cores: Sequence[int]) -> list[float]:
    """Present clock of each core in Hz, where the system says it."""
    found = []
    for core in cores:
        with suppress(OSError, ValueError):
            text = (_sys() / f"cpu{core}/cpufreq/scaling_cur_freq").read_text(encoding="ascii")
            found.append(int(text) * 1e3)
    return found


def _throttled(cores: Sequence[int]) -> int | None:
    counts = []
    for core in cores:
        with suppress(OSError, ValueError):
            text = (_sys() / f"cpu{core}/thermal_throttle/core_throttle_count").read_text(encoding="ascii")
            counts.append(int(text))
    return sum(counts) if counts else None


def _throttled_by(moment: Snapshot, index: int) -> Sequence[str]:
    return next((gpu.throttled_by for gpu in moment.gpus if gpu.index == index), ())


def _others(gpu: GpuState) -> int:
    """Number of processes on a GPU that are not this one nor its descendants."""
    return len({*gpu.processes} - {os.getpid(), *_descendants(os.getpid())})
