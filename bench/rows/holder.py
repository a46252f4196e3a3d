"""Who holds a lease: what its file says, and whether that process has ended."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

PROCESSES: Final = Path("/proc")
START_FIELD: Final = 19
"""Field of ``/proc/PID/stat`` after the name: when the process began (number 22 in proc(5))."""


@dataclass(frozen=True, slots=True)
class Holder:
    """What the file of a lease says.

    ``owner`` is a name that no other holder has, "" in a lease that was given back to keep its ``claim``. ``asleep``:
    a row may still come from an earlier holder of the claim, or from who printed it. ``machine``, ``pid`` and
    ``started`` tell the process from all others, on its machine and elsewhere; None where that is not known.
    """

    owner: str = ""
    claim: str | None = None
    asleep: bool = True
    machine: str | None = None
    pid: int | None = None
    started: str | None = None

    @property
    def text(self) -> str:
        """What :func:`read_holder` reads."""
        return json.dumps(asdict(self))

    @property
    def gave_back(self) -> bool:
        """Whether it only keeps a claim."""
        return self.owner == "" and self.claim is not None

    @property
    def has_ended(self) -> bool:
        """Whether the process ran on this machine and is no more; False where that is unknown."""
        if self.machine is None or self.pid is None or self.machine != _machine():
            return False
        return _start_of(self.pid) != self.started


def this_process(owner: str, claim: str, *, asleep: bool) -> Holder:
    """This process as the holder of a lease."""
    return Holder(owner, claim, asleep, _machine(), os.getpid(), _start_of(os.getpid()))


def read_holder(text: str) -> Holder:
    """What the text of a lease's file says; of another text that nothing is known."""
    try:
        said = json.loads(text)
    except ValueError:
        return Holder()
    if not isinstance(said, dict):
        return Holder()
    of_type: dict[str, type[Any]] = {
        "owner": str,
        "claim": str,
        "asleep": bool,
        "machine": str,
        "pid": int,
        "started": str,
    }
    return Holder(**{name: said[name] for name, kind in of_type.items() if isinstance(said.get(name), kind)})


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
