"""Several processes of one job, joined by ``jax.distributed``: one on every host of a slice, or several on one host.

Importing this module does not import JAX. As a script it joins and prints which process it is: only JAX can detect that
on a cluster.
"""

import json
import os
import pickle
import re
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Final

from engines.core.engine import JobProcess
from engines.core.errors import InvalidRequest, ShardbenchError, TimedOut
from engines.host.program import ExternalProgram, ProgramFailed
from engines.host.python import module_words
from engines.jax.settings import Settings

SHUTDOWN_TIMEOUT_S: Final = 60
"""How long a process waits for the others at shutdown, in seconds."""
HEARTBEAT_TIMEOUT_S: Final = (10, 100)
"""Bounds of the heartbeat timeout, in seconds: a process without a heartbeat for so long ends the job."""


def process_of(settings: Settings) -> JobProcess | None:
    """Which process of how many this is; None where it is the only one.

    Raises:
        InvalidRequest: a setting is out of range, or ``coordinator`` is not an address.
        ShardbenchError: ``coordinator=auto``, and JAX finds no cluster here or not all of its processes.
    """
    if settings.coordinator == "auto":
        return _detect(settings.join_timeout_s)
    count, process = settings.num_processes, settings.process_id
    for key, value, least in (("num_processes", count, 1), ("process_id", process, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InvalidRequest(f"engine.{key}", value, f"must be an integer ≥ {least}", "count processes from 0")
    if process >= count:
        remedy = f"use 0 to {count - 1}, or increase engine.num_processes"
        raise InvalidRequest("engine.process_id", process, f"must be < engine.num_processes={count}", remedy)
    if count == 1:
        return None
    if not re.fullmatch(r".+:\d+", settings.coordinator or ""):
        remedy = "give ADDRESS:PORT of process 0, the same in every process, or auto on a cluster that JAX knows"
        raise InvalidRequest("engine.coordinator", settings.coordinator, "is not the address of process 0", remedy)
    return JobProcess(process, count)


class ProcessGroup:
    """Implements :class:`engines.core.engine.Team`."""

    def __init__(self, settings: Settings) -> None:
        """Join the other processes; JAX ends this process if they do not join within ``join_timeout_s``."""
        import jax

        _initialize(settings)
        self.process = JobProcess(jax.process_index(), jax.process_count())

    def exchange(self, value: Any) -> list[Any]:
        """See :class:`engines.core.engine.Team`."""
        import numpy as np
        from jax.experimental.multihost_utils import process_allgather

        content = np.frombuffer(pickle.dumps(value), np.uint8)
        lengths = np.asarray(process_allgather(np.asarray([content.size], np.int32))).reshape(-1)
        padded = np.zeros(lengths.max(), np.uint8)
        padded[: content.size] = content
        gathered = np.asarray(process_allgather(padded))
        return [pickle.loads(each[:length].tobytes()) for each, length in zip(gathered, lengths, strict=True)]

    def leave(self) -> None:
        """See :class:`engines.core.engine.Team`."""
        import jax

        jax.distributed.shutdown()


def _initialize(settings: Settings) -> None:
    import jax

    timeouts: dict[str, Any] = {
        "initialization_timeout": max(1, round(settings.join_timeout_s)),
        "heartbeat_timeout_seconds": round(
            min(max(settings.join_timeout_s, HEARTBEAT_TIMEOUT_S[0]), HEARTBEAT_TIMEOUT_S[1])
        ),
        "shutdown_timeout_seconds": SHUTDOWN_TIMEOUT_S,
    }
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if settings.coordinator == "auto":
        jax.distributed.initialize(**timeouts)
        return
    jax.distributed.initialize(
        settings.coordinator,
        settings.num_processes,
        settings.process_id,
        cluster_detection_method="deactivate",
        **timeouts,
    )


@cache
def _detect(join_timeout_s: float) -> JobProcess | None:
    """The process index that JAX detects on a cluster, in a child process that takes no accelerator."""
    module = "engines.jax.multihost"
    remedy = "start every process of the job, or give ADDRESS:PORT with engine.num_processes and engine.process_id"
    try:
        words = module_words(module, str(join_timeout_s))
        printed = ExternalProgram(words, Path.cwd(), join_timeout_s + SHUTDOWN_TIMEOUT_S).run()
    except (ProgramFailed, TimedOut) as error:
        raise InvalidRequest("engine.coordinator", "auto", f"JAX found no cluster ({error})", remedy) from None
    lines = [line for line in printed.splitlines() if line.startswith("{")]
    if not lines:
        raise ShardbenchError(f"engine.coordinator=auto: {module} did not print its process index")
    process = JobProcess(**json.loads(lines[-1]))
    return None if process.count == 1 else process


def main(join_timeout_s: float) -> None:
    """Join, print this process's index and count as JSON, and leave."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    try:
        group = ProcessGroup(Settings(coordinator="auto", join_timeout_s=join_timeout_s))
    except Exception as error:  # the parent reports it in one line
        sys.exit(f"{type(error).__name__}: {error}")
    print(json.dumps(asdict(group.process)), flush=True)
    group.leave()


if __name__ == "__main__":
    main(float(sys.argv[1]))
