"""The environment that a row records: git revision, library versions, machine."""

import os
import platform
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from engines.core.versions import JAX_LIBRARIES, versions_of
from engines.host.nvidia import driver_and_gpus

CONTROL_GROUPS: Final = Path("/sys/fs/cgroup")
OWN_GROUP: Final = Path("/proc/self/cgroup")
CORES: Final = Path("/sys/devices/system/cpu")
"""Where Linux describes the cores and their caches."""
LIBRARIES: Final = ("shardbench", "numpy", "pandas", *JAX_LIBRARIES, "torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """``git_sha`` and ``git_dirty`` describe the checkout of this code; None if it was installed as a package.

    ``cores`` are those that this process may use, ``cpu_quota`` the number of them that its control group may keep busy
    (None: no limit), ``gpus`` the name and power limit of each NVIDIA GPU as its driver states them.
    ``cache_bytes`` is the last-level cache of all cores that this process may use; None if the system does not say.
    """

    git_sha: str | None
    git_dirty: bool | None
    versions: Mapping[str, str]
    host: str
    processor: str
    cores: int
    cpu_quota: float | None
    gpus: Sequence[str]
    memory_bytes: int | None
    cache_bytes: int | None


@cache
def read_environment() -> Environment:
    """The environment of this process, read once."""
    sha, dirty = _git()
    driver, gpus = driver_and_gpus()
    return Environment(
        git_sha=sha,
        git_dirty=dirty,
        versions={
            "python": platform.python_version(),
            **versions_of(LIBRARIES),
            **({"driver": driver} if driver else {}),
        },
        host=socket.gethostname(),
        processor=_processor(),
        cores=len(cpu_affinity()),
        cpu_quota=cpu_quota(),
        gpus=gpus,
        memory_bytes=_memory_bytes(),
        cache_bytes=_cache_bytes(),
    )


def cpu_affinity() -> list[int]:
    """Numbers of the cores that this process may use now."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_quota(groups: Path = CONTROL_GROUPS, own: Path = OWN_GROUP) -> float | None:
    """Cores that the control groups (version 2) of this process let it keep busy at a time; None without a limit.

    The least of its group and of all groups around it counts.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    path = next((line[3:].strip("/") for line in lines if line.startswith("0::")), None)
    if path is None:
        return None
    folder, quotas = groups / path, list[float]()
    for each in (folder, *folder.parents):
        if not each.is_relative_to(groups):
            break
        with suppress(OSError, ValueError):  # the outermost group has no such file, and "max" is no number
            quota, period = (each / "cpu.max").read_text(encoding="utf-8").split()
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _git() -> tuple[str | None, bool | None]:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None, None
    sha = _output("git", "-C", str(root), "rev-parse", "HEAD")
    # Changed rows and reports do not count: they are outputs of this code.
    code = ("bench", "engines", "conf", "pyproject.toml", "constraints.txt")
    changes = _output("git", "-C", str(root), "status", "--porcelain", "--", *code)
    return sha or None, None if changes is None else bool(changes)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _cache_bytes() -> int | None:
    if not hasattr(os, "sched_getaffinity"):
        return None
    caches: dict[tuple[int, str], int] = {}  # (level, cores that share it) → bytes
    try:
        for core in os.sched_getaffinity(0):
            for folder in CORES.glob(f"cpu{core}/cache/index*"):
                level, shared, size = (
                    (folder / name).read_text(encoding="ascii").strip() for name in ("level", "shared_cpu_list", "size")
                )
                caches[int(level), shared] = int(size.removesuffix("K")) * 1024
    except (OSError, ValueError):
        return None
    last = max((level for level, _ in caches), default=None)
    return sum(size for (level, _), size in caches.items() if level == last) or None


def _output(*words: str) -> str | None:
    """A command's stdout; None if it is not installed, fails or hangs."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
