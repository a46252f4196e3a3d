"""Limits of a child process: memory, checked by the parent, and CPU cores."""

import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from engines.core.errors import InvalidRequest
from engines.host.resident import resident_bytes

MEMORY_READS: Final = 4
READ_INTERVAL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of an engine that runs in child processes; None is no limit.

    ``memory_bytes`` limits the resident memory of a child and all processes that it started. It is read from ``/proc``,
    which takes one short read per process and no library; on systems other than Linux it is not enforced.
    ``timeout_s`` limits the seconds without a message from the child.
    """

    timeout_s: float | None = None
    memory_bytes: float | None = None
    cores: int | None = None

    @classmethod
    def of(cls, engine_config: Mapping[str, Any]) -> "Limits":
        """The limits of an engine's config.

        Raises:
            InvalidRequest: a limit is not a number > 0, or there are fewer cores.
        """
        timeout_s = _positive(engine_config, "timeout_s", "seconds such as 600")
        memory = _positive(engine_config, "memory_limit_bytes", "bytes such as 8e9")
        cores = engine_config.get("cores")
        if cores is not None:
            present = len(_cores())
            if not isinstance(cores, int) or isinstance(cores, bool) or not 1 <= cores <= present:
                raise InvalidRequest(
                    "engine.cores",
                    cores,
                    f"must be an integer from 1 to {present}, the cores that this process may use",
                    "use one of these, or null for all",
                )
        return cls(timeout_s, memory, cores)

    def over(self, group: int) -> float | None:
        """Resident bytes of a process group if they stay above the limit, else None.

        One read is not enough: between fork and exec, a new process counts with all the memory of its parent.
        """
        if self.memory_bytes is None:
            return None
        for read in range(MEMORY_READS):
            if read:
                time.sleep(READ_INTERVAL_S)
            resident = resident_bytes(group)
            if resident <= self.memory_bytes:
                return None
        return resident

    def exceeded(self, resident: float) -> str:
        """The sentence for a child that was killed with ``resident`` bytes of memory."""
        return (
            f"the worker was killed: it used {resident / 1e9:.2f} GB of memory, more than "
            f"engine.memory_limit_bytes={self.memory_bytes:g}; raise the limit or use a smaller point"
        )

    def set_affinity(self, chosen: Sequence[int] | None = None) -> None:
        """Restrict this process and all that it starts to the ``chosen`` cores, or else to ``cores`` of them.

        These are chosen at random, so that concurrent commands do not all use the same ones.
        """
        if chosen is None and self.cores is not None:
            chosen = random.sample(_cores(), self.cores)
        if chosen is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, chosen)


def _positive(engine_config: Mapping[str, Any], key: str, example: str) -> float | None:
    value = engine_config.get(key)
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
        raise InvalidRequest(f"engine.{key}", value, "must be a number > 0", f"use {example}, or null for no limit")
    return float(value)


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
