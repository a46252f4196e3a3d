"""Devices of this machine, of which one measurement alone may use each at a time, whichever command it is of.

A device is a file that its user locks (``flock``): a core that the process may use, a GPU that it sees, or the TPUs.
The system gives the lock back when the process ends, whatever ends it. Commands in containers that share neither
``/dev/shm`` nor the folder that ``SHARDBENCH_DEVICES`` names do not see each other.
"""

import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from bench.run.environment import cpu_affinity, read_environment
from engines.core.chip import Chip
from engines.host.scratch import temporary_place

FOLDER: Final = "SHARDBENCH_DEVICES"
SHARED_MEMORY: Final = Path("/dev/shm")
POLL_S: Final = 0.02
TELL_AFTER_S: Final = 2.0
"""Who waits longer than that says so."""


def folder() -> Path:
    """Where the files are: one place for all users of the machine."""
    named = os.environ.get(FOLDER)
    if named:
        return Path(named)
    return (SHARED_MEMORY if SHARED_MEMORY.is_dir() else temporary_place()) / "shardbench-devices"


def devices_of(chip: Chip, cores: Sequence[int] | None = None) -> list[str]:
    """What a measurement on a chip takes: the cores that it may use (``cores``, or all of this process's), or others.

    A GPU measurement takes every GPU that ``CUDA_VISIBLE_DEVICES`` leaves it.
    """
    if chip.kind == "cpu":
        return [f"core-{core}" for core in (cpu_affinity() if cores is None else cores)]
    if chip.kind == "gpu":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        indices = range(max(1, len(read_environment().gpus))) if visible is None else visible.split(",")
        return [f"gpu-{re.sub(r'[^0-9A-Za-z-]', '', str(index))}" for index in indices]
    return ["tpu"]


class Devices:
    """The devices that this process holds for one measurement at a time."""

    def __init__(self) -> None:
        self._files: dict[str, IO[str]] = {}

    def take(self, names: Iterable[str]) -> None:
        """Hold devices, once nobody else does. What cannot be locked (no such file can be made) is not waited for."""
        begin, told = time.monotonic(), False
        # In one order everywhere, so that nobody waits for somebody who waits for him.
        for name in sorted(set(names)):
            while not self.try_take(name):
                if not told and time.monotonic() - begin >= TELL_AFTER_S:
                    told = True
                    who = _holder(name)
                    print(f"shardbench: waits for {name}, on which {who} measures", file=sys.stderr, flush=True)
                time.sleep(POLL_S)

    def release(self) -> None:
        """Give all of them back."""
        for file in self._files.values():
            _lock(file, held=False)

    def close(self) -> None:
        """Give all of them back, for good."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def try_take(self, name: str) -> bool:
        """Whether the device is this process's from now on, or nobody can hold it."""
        if name not in self._files:
            file = _opened(name)
            if file is None:
                return True
            self._files[name] = file
        if not _lock(self._files[name], held=True):
            return False
        with suppress(OSError):
            self._files[name].truncate(0)
            self._files[name].seek(0)
            self._files[name].write(f"process {os.getpid()}")
            self._files[name].flush()
        return True


def _opened(name: str) -> IO[str] | None:
    """The file of a device; None where there cannot be one."""
    try:
        place = folder()
        if not place.is_dir():
            place.mkdir()
            place.chmod(0o1777)  # for all users
        descriptor = os.open(place / name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        with suppress(OSError):
            os.fchmod(descriptor, 0o666)
        return os.fdopen(descriptor, "r+", encoding="utf-8")
    except (OSError, AttributeError):
        return None


def _lock(file: IO[str], *, held: bool) -> bool:
    """Whether a file is locked now as asked."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB if held else fcntl.LOCK_UN)
    except OSError:
        return False
    return True


def core_sets(size: int, sets: int) -> list[list[int]]:
    """At most ``sets`` lists of ``size`` of this process's cores, none in two of them; those that nobody measures on
    first."""
    cores = cpu_affinity()
    busy = _busy(f"core-{core}" for core in cores)
    cores.sort(key=lambda core: f"core-{core}" in busy)
    return [sorted(cores[begin : begin + size]) for begin in range(0, len(cores) - size + 1, size)][:sets]


def _busy(names: Iterable[str]) -> set[str]:
    probe = Devices()
    try:
        return {name for name in names if not probe.try_take(name)}
    finally:
        probe.close()


def _holder(name: str) -> str:
    try:
        return (folder() / name).read_text(encoding="utf-8") or "another process"
    except OSError:
        return "another process"
