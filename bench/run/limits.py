"""What a child process may take of this machine: memory, watched from outside, and cores."""

import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engines.core.errors import InvalidRequest

PROCESSES: Final = Path("/proc")
LOOKS: Final = 4
BETWEEN_LOOKS_S: Final = 0.05
GROUP_FIELD: Final = 2
PAGES_FIELD: Final = 21
"""Of ``/proc/PID/stat`` after the name: process group, and resident pages (proc(5) counts them 5 and 24)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Settings of an engine that runs in children; None is no limit.

    ``memory_bytes`` is resident memory of a child and all that it started. It is read in ``/proc``, since that is one
    short read a process and needs no library: elsewhere than on Linux nothing is watched.
    """

    memory_bytes: float | None = None
    cores: int | None = None

    @classmethod
    def of(cls, engine_config: Mapping[str, Any]) -> "Limits":
        """The limits of an engine's config.

        Raises:
            InvalidRequest: one is no number, or none that this machine has.
        """
        memory, cores = engine_config.get("memory_limit_bytes"), engine_config.get("cores")
        if memory is not None and (not isinstance(memory, (int, float)) or isinstance(memory, bool) or memory <= 0):
            raise InvalidRequest(
                "engine.memory_limit_bytes", memory, "is no limit", "give bytes above 0, such as 8e9, or null for none"
            )
        if cores is not None:
            present = len(_cores())
            if not isinstance(cores, int) or isinstance(cores, bool) or not 1 <= cores <= present:
                raise InvalidRequest(
                    "engine.cores",
                    cores,
                    f"is no number of the {present} cores that this process may use",
                    f"give 1 to {present}, or null for all",
                )
        return cls(memory, cores)

    def over(self, group: int) -> float | None:
        """Bytes that a process group holds where they stay above the limit, else None.

        One look does not tell: from its fork to its exec, what a process starts is counted with all that this holds.
        """
        if self.memory_bytes is None:
            return None
        for look in range(LOOKS):
            if look:
                time.sleep(BETWEEN_LOOKS_S)
            held = resident_bytes(group)
            if held <= self.memory_bytes:
                return None
        return held

    def told(self, held: float) -> str:
        """The sentence for a child that was ended."""
        return (
            f"took {held / 1e9:.2f} GB of memory, more than engine.memory_limit_bytes={self.memory_bytes:g}, and was "
            "ended; raise it or ask for less"
        )

    def keep_to_cores(self) -> None:
        """Let this process, and what it starts from now on, use no more cores than it may.

        Which ones is drawn, so that several commands at once do not all take the same.
        """
        if self.cores is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, random.sample(_cores(), self.cores))


def resident_bytes(group: int) -> int:
    """Resident memory of every process of a group; 0 where the system does not say."""
    page_bytes, held = os.sysconf("SC_PAGE_SIZE"), 0
    for folder in PROCESSES.glob("[0-9]*"):
        try:
            text = (folder / "stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            continue  # it ended meanwhile
        fields = text.rpartition(")")[2].split()  # a name may hold blanks and brackets
        if int(fields[GROUP_FIELD]) == group:
            held += int(fields[PAGES_FIELD]) * page_bytes
    return held


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
