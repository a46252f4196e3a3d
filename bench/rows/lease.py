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
the last generation counts (:mod:`bench.rows.claim`). As long as a former holder may be asleep, the ID must not be
forgotten before a row of it is stored: who gives such a lease back makes a file of the next generation that nobody
holds, for the next to take over, and no sweep removes it in :data:`FORGET_S`.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.rows.claim import Claim, new_id
from bench.rows.holder import Holder, read_holder, this_process
from bench.storage.choose import storage_of

FOLDER: Final = "leases"
LEASE_S: Final = 60.0
RENEW_S: Final = 15.0
CLOCK: Final = ".clock-"
"""How the name of a file begins that is touched to read the storage's clock."""
MOST_REMOVALS: Final = 100
"""How often in a row the folder may be gone between its making and that of a file in it."""
FORGET_S: Final = 7 * 24 * 3600.0
"""Age at which a lease goes that nobody holds and under whose claim a row might still come."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A lease's file as it was: when it was touched, by the storage's clock, and when this process first saw it so."""

    touched_ns: int
    since_s: float


@dataclass(frozen=True, slots=True)
class Held:
    """A lease of this process: its file, what it holds, and the claim of rows that are stored under it.

    ``asleep``: another may still store a row under the claim.
    """

    path: Path
    content: bytes
    claim: Claim
    asleep: bool


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
        last = self._said(found[generation - 1]) if found else None
        asleep = any(said.asleep or not said.has_ended for said in map(self._said, found.values()) if said is not None)
        inherited = last.claim if last is not None and asleep else None
        claim = Claim(inherited or new_id(), generation)
        path = self.folder / f"{key}.{generation}"
        content = this_process(self._owner, claim.id, asleep=asleep).text.encode()
        try:
            self._create(path, content)
        except FileExistsError:
            return False  # somebody else was first
        others = {number: other for number, other in self._generations(key).items() if number != generation}
        if max(others, default=-1) > generation or not all(self._is_over(other) for other in others.values()):
            self._storage.remove(path)  # others took and gave back between the two looks, or the first was of old
            return False
        for other in others.values():
            self._storage.remove(other)
        with self._lock:
            self._held[key] = Held(path, content, claim, asleep)
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

    def release(self, key: str, *, stored: bool = False) -> None:
        """Give a lease back, if it is this process's; ``stored``: a row of its claim, or a later one, is."""
        with self._lock:
            held = self._held.pop(key, None)
        if held is not None and self._is_mine(held.path):
            self._give_back(key, held, keeps_claim=held.asleep and not stored)

    def abandon(self, key: str) -> None:
        """Give a lease back whose row may come some day, so that who takes it over takes over its claim."""
        with self._lock:
            held = self._held.pop(key, None)
        if held is not None and self._is_mine(held.path):
            self._give_back(key, held, keeps_claim=True)

    def _give_back(self, key: str, held: Held, *, keeps_claim: bool) -> None:
        with suppress(OSError):  # then it runs out
            if keeps_claim:
                kept = Holder(claim=held.claim.id).text.encode()
                with suppress(FileExistsError):  # somebody has taken it over at this moment
                    self._storage.create(self.folder / f"{key}.{held.claim.generation + 1}", kept)
            self._storage.remove(held.path)

    def may_be_claimed(self, key: str) -> bool:
        """Whether another may store, or have stored, a row under the claim of a lease of this process."""
        held = self._held.get(key)
        return held is not None and held.asleep

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

    def _said(self, path: Path) -> Holder | None:
        """What the file of a lease says; None if it is gone."""
        try:
            return read_holder(self._storage.touched(path).text)
        except FileNotFoundError:
            return None

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
        said = read_holder(now.text)
        if said.gave_back or said.has_ended:
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
        now_ns = self._now_ns() if names else 0
        for path in (self.folder / name for name in names):
            with suppress(FileNotFoundError):
                found = self._storage.touched(path)
                said, age_s = read_holder(found.text), (now_ns - found.at_ns) / 1e9
                if path.name.startswith(CLOCK):
                    is_left = age_s > LEASE_S
                else:
                    is_left = (said.has_ended and not said.asleep) or (age_s > FORGET_S and self._is_over(path))
                if is_left:
                    self._storage.remove(path)
