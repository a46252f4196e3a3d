"""The memory that processes really take."""

import os
from pathlib import Path
from typing import Final

PROCESSES: Final = Path("/proc")
GROUP_FIELD: Final = 2
PAGES_FIELD: Final = 21
"""Fields of ``/proc/PID/stat`` after the name: process group and resident pages (numbers 5 and 24 in proc(5))."""


def resident_bytes(group: int) -> int:
    """Resident memory of all processes of a group in bytes; 0 if the system has no ``/proc``."""
    page_bytes, resident = os.sysconf("SC_PAGE_SIZE"), 0
    for folder in PROCESSES.glob("[0-9]*"):
        try:
            text = (folder / "stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            continue  # the process ended meanwhile
        fields = text.rpartition(")")[2].split()  # a name may contain spaces and parentheses
        if int(fields[GROUP_FIELD]) == group:
            resident += int(fields[PAGES_FIELD]) * page_bytes
    return resident
