"""What the system knows of processes: the memory that they really take, and whose they are."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PROCESSES: Final = Path("/proc")
STATE_FIELD: Final = 0
PARENT_FIELD: Final = 1
GROUP_FIELD: Final = 2
PAGES_FIELD: Final = 21
"""Fields of ``/proc/PID/stat`` after the name: state, parent, group, resident pages (3, 4, 5, 24 in proc(5))."""


def resident_bytes(group: int) -> int:
    """Resident memory of all processes of a group in bytes; 0 if the system has no ``/proc``."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    members = (fields for _, _, fields in _processes() if int(fields[GROUP_FIELD]) == group)
    return sum(int(fields[PAGES_FIELD]) * page_bytes for fields in members)


def children(name: str) -> list[int]:
    """Ids of this process's living children of a name (its first 15 characters); none if there is no ``/proc``."""
    own = os.getpid()
    return [
        number
        for number, called, fields in _processes()
        if called == name[:15] and int(fields[PARENT_FIELD]) == own and fields[STATE_FIELD] not in "XZ"
    ]


def _processes() -> Iterator[tuple[int, str, list[str]]]:
    """Id, name and fields after the name of every process."""
    for folder in PROCESSES.glob("[0-9]*"):
        try:
            text = (folder / "stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            continue  # the process ended meanwhile
        before, _, after = text.rpartition(")")  # a name may contain spaces and parentheses
        yield int(folder.name), before.partition("(")[2], after.split()


def peak_resident_bytes() -> float | None:
    """The most resident memory that this process has had, by Linux's own count; None on other systems."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
