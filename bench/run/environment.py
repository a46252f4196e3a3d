"""The environment that a row records: git revision, library versions, machine."""

import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from engines.core.versions import JAX_LIBRARIES, versions_of

CORES: Final = Path("/sys/devices/system/cpu")
"""Where Linux describes the cores and their caches."""
LIBRARIES: Final = ("shardbench", "numpy", "pandas", *JAX_LIBRARIES, "torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """``git_sha`` and ``git_dirty`` describe the checkout of this code; None if it was installed as a package.

    ``cache_bytes`` is the last-level cache of all cores that this process may use; None if the system does not say.
    """

    git_sha: str | None
    git_dirty: bool | None
    versions: Mapping[str, str]
    host: str
    processor: str
    cores: int
    memory_bytes: int | None
    cache_bytes: int | None


@cache
def read_environment() -> Environment:
    """The environment of this process, read once."""
    sha, dirty = _git()
    return Environment(
        git_sha=sha,
        git_dirty=dirty,
        versions=_versions(),
        host=socket.gethostname(),
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        cache_bytes=_cache_bytes(),
    )


def _git() -> tuple[str | None, bool | None]:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None, None
    sha = _output("git", "-C", str(root), "rev-parse", "HEAD")
    # Changed rows and reports do not count: they are outputs of this code.
    code = ("bench", "engines", "conf", "pyproject.toml", "constraints.txt")
    changes = _output("git", "-C", str(root), "status", "--porcelain", "--", *code)
    return sha or None, None if changes is None else bool(changes)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), **versions_of(LIBRARIES)}
    if shutil.which("nvidia-smi"):
        driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        if driver:
            found["driver"] = driver.splitlines()[0]
    return found


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
