"""Leases on points: which writer of a store works on which point, on any storage that several hosts may share.

``RESULTS_DIR/leases`` has one small file a point that somebody works on. A file is made with ``O_EXCL``, which one
writer alone can win, on NFS too; no lock of the system is used. Its holder touches it every :data:`RENEW_S`. A lease is
over once its file was not touched for :data:`LEASE_S`, or at once where its holder ran on this machine and has ended.

Clocks of hosts are not compared. The age of a file is the time of another that was touched just now *in that folder*:
both are of the storage's clock. And no age alone ends a lease, since that clock may jump too: its file must have been
looked at twice, a while apart by this process's own monotonic clock, and not have changed.

Taking over does not touch the file of the former holder: it makes the file of the next *generation*, ``POINT.1`` after
``POINT.0``, which again one writer alone can win, and looks at all generations afterwards. A former holder that was
only asleep finds its file gone, or another beside it, and stores nothing.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOLDER: Final = "leases"
LEASE_S: Final = 60.0
RENEW_S: Final = 15.0
CLOCK: Final = ".clock-"
"""How the name of a file begins that is touched to read the storage's clock."""
PROCESSES: Final = Path("/proc")
START_FIELD: Final = 19
"""Field of ``/proc/PID/stat`` after the name: when the process began (number 22 in proc(5))."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A lease's file as it was: when it was touched, by the storage's clock, and when this process first saw it so."""

    touched_ns: int
    since_s: float


class Leases:
    """The leases that this process has on a store, renewed by a thread until :meth:`close`."""

    def __init__(self, results_dir: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.folder = results_dir / FOLDER
        self._owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._held: dict[str, Path] = {}
        self._seen: dict[str, Seen] = {}
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._renewer: threading.Thread | None = None

    def take(self, key: str) -> bool:
        """Whether the lease is this process's from now on; it may have been before.

        Raises:
            OSError: the folder cannot be written.
        """
        if self.holds(key):
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        found = self._generations(key)
        if not all(self._is_over(path) for path in found.values()):
            return False
        path = self.folder / f"{key}.{max(found, default=-1) + 1}"
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False  # somebody else was first
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"owner": self._owner, **_this_process()}, file)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        others = [other for other in self._generations(key).values() if other != path]
        if not all(self._is_over(other) for other in others):
            path.unlink(missing_ok=True)  # between the two looks somebody took and gave back, and another took
            return False
        for other in others:
            other.unlink(missing_ok=True)
        with self._lock:
            self._held[key] = path
            if self._renewer is None:
                self._renewer = threading.Thread(target=self._renew, daemon=True, name="leases")
                self._renewer.start()
        return True

    def is_free(self, key: str) -> bool:
        """Whether :meth:`take` would take it, as far as can be seen now."""
        return self.holds(key) or all(self._is_over(path) for path in self._generations(key).values())

    def holds(self, key: str) -> bool:
        """Whether the lease is still this process's: nobody has taken it over."""
        path = self._held.get(key)
        if path is None:
            return False
        if list(self._generations(key).values()) == [path] and self._is_mine(path):
            return True
        self.release(key)
        return False

    def release(self, key: str) -> None:
        """Give a lease back, if it is this process's."""
        with self._lock:
            path = self._held.pop(key, None)
        if path is not None and self._is_mine(path):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Give all leases back, and remove the folder if nobody has any."""
        self._over.set()
        for key in list(self._held):
            self.release(key)
        with suppress(OSError):
            self._sweep()
            self.folder.rmdir()

    def _is_mine(self, path: Path) -> bool:
        """Whether a file is of this process: once it was over, another may have made one of the same name."""
        try:
            return f'"{self._owner}"' in path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False

    def _generations(self, key: str) -> dict[int, Path]:
        """Generation → file of a lease."""
        found = {}
        with suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                name, _, number = entry.name.rpartition(".")
                if name == key and number.isdecimal():
                    found[int(number)] = self.folder / entry.name
        return found

    def _is_over(self, path: Path) -> bool:
        """Whether the holder of a lease has ended or given it back, as far as can be known now."""
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                # Of an open file: what NFS knows of a name alone may be a minute old.
                touched_ns, holder = os.fstat(file.fileno()).st_mtime_ns, file.read()
        except FileNotFoundError:
            return True
        if _has_ended(holder):
            return True
        seen = self._seen.get(path.name)
        if seen is None or seen.touched_ns != touched_ns:
            self._seen[path.name] = Seen(touched_ns, self._monotonic())
            return False
        unchanged_s = self._monotonic() - seen.since_s
        if unchanged_s <= 2 * RENEW_S:
            return False
        return unchanged_s > LEASE_S or self._now_ns() - touched_ns > LEASE_S * 1e9

    def _now_ns(self) -> int:
        """The time by the storage's clock."""
        clock = self.folder / f"{CLOCK}{self._owner}"
        clock.touch()
        try:
            os.utime(clock)
            return clock.stat().st_mtime_ns
        finally:
            clock.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._over.wait(RENEW_S):
            with self._lock:
                for path in self._held.values():
                    if self._is_mine(path):
                        with suppress(OSError):  # gone, which `holds` finds, or the storage is away for a while
                            os.utime(path)

    def _sweep(self) -> None:
        """Remove what dead processes left: leases of points that nobody asks any more, and clocks."""
        now_ns = self._now_ns()
        for path in self.folder.iterdir():
            is_old_clock = path.name.startswith(CLOCK) and now_ns - path.stat().st_mtime_ns > LEASE_S * 1e9
            if is_old_clock or (not path.name.startswith(CLOCK) and self._is_over(path)):
                path.unlink(missing_ok=True)


def _this_process() -> dict[str, Any]:
    """What tells this process from all others, on this machine and elsewhere."""
    return {"machine": _machine(), "pid": os.getpid(), "started": _start_of(os.getpid())}


def _machine() -> str | None:
    """This boot of this machine and this space of process ids (a container has its own); None where unknown."""
    try:
        boot = (PROCESSES / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink(PROCESSES / 'self/ns/pid')}"
    except OSError:
        return None


def _start_of(pid: int) -> str | None:
    """When a process of this machine began, in ticks since boot; None if there is none."""
    try:
        text = (PROCESSES / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "XZ" else fields[START_FIELD]


def _has_ended(holder: str) -> bool:
    """Whether the process that a lease's file names ran on this machine and is no more; False where that is unknown."""
    try:
        said = json.loads(holder)
        machine, pid, started = said["machine"], int(said["pid"]), said["started"]
    except (ValueError, TypeError, KeyError):
        return False
    return machine is not None and machine == _machine() and _start_of(pid) != started
