"""Leases on points: which writer of a store works on which point, on any storage that several hosts may share.

``RESULTS_DIR/leases`` has one small file a point that somebody works on. A file is made by ``create`` of
:mod:`bench.storage`, which one writer alone can win (``O_EXCL`` in a folder, on NFS too; a conditional put in an object
store); no lock of the system is used. Its holder touches it every :data:`RENEW_S`. A lease is over once its file was
not touched for :data:`LEASE_S`, or at once where its holder ran on this machine and has ended.

Clocks of hosts are not compared. The age of a file is the time of another that was touched just now *in that folder*:
both are of the storage's clock. And no age alone ends a lease, since that clock may jump too: its file must have been
looked at twice, a while apart by this process's own monotonic clock, and not have changed.

Taking over does not touch the file of the former holder: it makes the file of the next *generation*, ``POINT.1`` after
``POINT.0``, which again one writer alone can win, and looks at all generations afterwards. A former holder that was
only asleep finds its file gone, or a later one beside it, and stores nothing.

It may fall asleep after that look, too, and store a row all the same. Therefore every row says under which *claim* it
was stored, ``ID.GENERATION``: who takes a lease over takes the ID over with it, and of several rows of one ID that of
the last generation counts (:mod:`bench.rows.claim`).
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

from bench.rows.claim import Claim, new_id
from bench.storage.choose import storage_of

FOLDER: Final = "leases"
LEASE_S: Final = 60.0
RENEW_S: Final = 15.0
CLOCK: Final = ".clock-"
"""How the name of a file begins that is touched to read the storage's clock."""
MOST_REMOVALS: Final = 100
"""How often in a row the folder may be gone between its making and that of a file in it."""
PROCESSES: Final = Path("/proc")
START_FIELD: Final = 19
"""Field of ``/proc/PID/stat`` after the name: when the process began (number 22 in proc(5))."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A lease's file as it was: when it was touched, by the storage's clock, and when this process first saw it so."""

    touched_ns: int
    since_s: float


@dataclass(frozen=True, slots=True)
class Held:
    """A lease of this process: its file, what it holds, and the claim of rows that are stored under it."""

    path: Path
    content: bytes
    claim: Claim


class Leases:
    """The leases that this process has on a store, renewed by a thread until :meth:`close`."""

    def __init__(self, results_dir: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.folder = results_dir / FOLDER
        self._storage = storage_of(results_dir)
        self._owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._held: dict[str, Held] = {}
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
        self._storage.make_folder(self.folder)
        found = self._generations(key)
        if not all(self._is_over(path) for path in found.values()):
            return False
        generation = max(found, default=-1) + 1
        claim = Claim((found and self._claimed(found[generation - 1])) or new_id(), generation)
        path = self.folder / f"{key}.{generation}"
        content = json.dumps({"owner": self._owner, "claim": claim.id, **_this_process()}).encode()
        try:
            self._create(path, content)
        except FileExistsError:
            return False  # somebody else was first
        others = [other for other in self._generations(key).values() if other != path]
        if not all(self._is_over(other) for other in others):
            self._storage.remove(path)  # between the two looks somebody took and gave back, and another took
            return False
        for other in others:
            self._storage.remove(other)
        with self._lock:
            self._held[key] = Held(path, content, claim)
            if self._renewer is None:
                self._renewer = threading.Thread(target=self._renew, daemon=True, name="leases")
                self._renewer.start()
        return True

    def _create(self, path: Path, content: bytes) -> None:
        """Create a file, also where whoever gave the last lease back removes the empty folder at this moment."""
        for _ in range(MOST_REMOVALS):
            with suppress(FileNotFoundError):
                self._storage.create(path, content)
                return
            self._storage.make_folder(self.folder)
        self._storage.create(path, content)

    def is_free(self, key: str) -> bool:
        """Whether :meth:`take` would take it, as far as can be seen now."""
        return self.holds(key) or all(self._is_over(path) for path in self._generations(key).values())

    def claim(self, key: str) -> Claim | None:
        """The claim under which rows are stored by this lease; None if it is not this process's."""
        held = self._held.get(key)
        return None if held is None else held.claim

    def holds(self, key: str) -> bool:
        """Whether the lease is still this process's: nobody has taken it over."""
        held = self._held.get(key)
        if held is None:
            return False
        if max(self._generations(key, fresh=True), default=-1) == held.claim.generation and self._is_mine(held.path):
            return True
        self.release(key)
        return False

    def release(self, key: str) -> None:
        """Give a lease back, if it is this process's."""
        with self._lock:
            held = self._held.pop(key, None)
        if held is not None and self._is_mine(held.path):
            with suppress(OSError):
                self._storage.remove(held.path)

    def abandon(self, key: str) -> None:
        """Leave a lease to run out, so that who takes it over takes over its claim."""
        with self._lock:
            self._held.pop(key, None)

    def close(self) -> None:
        """Give all leases back, and remove the folder if nobody has any."""
        self._over.set()
        for key in list(self._held):
            self.release(key)
        with suppress(OSError):
            self._sweep()
            self._storage.remove_folder(self.folder)

    def _is_mine(self, path: Path) -> bool:
        """Whether a file is of this process: once it was over, another may have made one of the same name."""
        try:
            return f'"{self._owner}"' in self._storage.touched(path).text
        except OSError:
            return False

    def _claimed(self, path: Path) -> str | None:
        """The ID of the claim of a lease that is over; None if its file does not say, or is gone."""
        try:
            said = json.loads(self._storage.touched(path).text)["claim"]
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return said if isinstance(said, str) else None

    def _generations(self, key: str, *, fresh: bool = False) -> dict[int, Path]:
        """Generation → file of a lease."""
        found = {}
        for each in self._storage.names(self.folder, fresh=fresh):
            name, _, number = each.rpartition(".")
            if name == key and number.isdecimal():
                found[int(number)] = self.folder / each
        return found

    def _is_over(self, path: Path) -> bool:
        """Whether the holder of a lease has ended or given it back, as far as can be known now."""
        try:
            now = self._storage.touched(path)
        except FileNotFoundError:
            return True
        if _has_ended(now.text):
            return True
        seen = self._seen.get(path.name)
        if seen is None or seen.touched_ns != now.at_ns:
            self._seen[path.name] = Seen(now.at_ns, self._monotonic())
            return False
        unchanged_s = self._monotonic() - seen.since_s
        if unchanged_s <= 2 * RENEW_S:
            return False
        return unchanged_s > LEASE_S or self._now_ns() - now.at_ns > LEASE_S * 1e9

    def _now_ns(self) -> int:
        """The time by the storage's clock."""
        return self._storage.now_ns(self.folder / f"{CLOCK}{self._owner}")

    def _renew(self) -> None:
        while not self._over.wait(RENEW_S):
            with self._lock:
                held = list(self._held.values())
            for each in held:
                if self._is_mine(each.path):
                    with suppress(OSError):  # gone, which `holds` finds, or the storage is away for a while
                        self._storage.touch(each.path, each.content)

    def _sweep(self) -> None:
        """Remove what dead processes left: leases of points that nobody asks any more, and clocks."""
        names = self._storage.names(self.folder)
        now_ns = self._now_ns() if any(name.startswith(CLOCK) for name in names) else 0
        for path in (self.folder / name for name in names):
            is_clock = path.name.startswith(CLOCK)
            if (is_clock and now_ns - self._storage.touched(path).at_ns > LEASE_S * 1e9) or (
                not is_clock and self._is_over(path)
            ):
                self._storage.remove(path)


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
