"""How well many workers share one store: their points sleep, so that a cluster of 64 hosts fits on a few cores.

    python -m perf.cluster [workers=64] [points=768] [sleep_s=5]

Every worker does what the command does on a host of its own, from the reading of the store on. What comes before, to
load Python's modules and to compose the config, is done once before all are forked: 64 hosts do it at once, and a few
cores one after the other. Its devices are its own, too. Printed are the efficiency, which is the time that all points
slept by that of all workers from the first fork to the end of the last, and what a worker needed of the processor.
"""

import contextlib
import json
import os
import resource
import sys
import time
from pathlib import Path

from bench.run import devices, runner
from bench.sweep.composer import Composer
from bench.sweep.expand import Request
from bench.sweep.requests import requests_of
from engines.host.scratch import ScratchFolder

ASKED = 0.9
"""The least efficiency that is wanted of 64 workers."""


def composed(points: int, sleep_s: float, results_dir: Path) -> list[Request]:
    """What every worker is asked."""
    words = [
        *("model=tiny", "hw=cpu", "num_chips=1", "engine=jax", "input_len=16", "output_len=4"),
        *("engine._target_=perf.sleeping_engine.SleepingEngine", f"+engine.sleep_s={sleep_s}"),
        *("engine.isolated=false", "timing.min_time_s=0", "timing.max_time_s=0", "timing.min_samples=1"),
        *("timing.min_warmup_runs=1", "timing.warmup_window=1", "timing.max_warmup_runs=1"),
        *("wandb.mode=disabled", "print=none", f"results_dir={results_dir}"),
        f"batch_size=[{','.join(str(size + 1) for size in range(points))}]",
    ]
    with Composer().ready() as composer:
        return requests_of(composer, words)


def start(host: Path, requests: list[Request]) -> int:
    """A worker on a host whose devices nobody else has."""
    host.mkdir(parents=True)
    pid = os.fork()
    if pid:
        return pid
    os.environ[devices.FOLDER] = str(host)
    code = 9
    with contextlib.suppress(BaseException):
        code = runner.run(requests).exit_code
    os._exit(code)


def efficiency(workers: int, points: int, sleep_s: float) -> tuple[float, float]:
    """The share of the workers' time in which points slept, and the processor seconds of a worker."""
    with ScratchFolder() as folder:
        results = folder / "results"
        requests = composed(points, sleep_s, results)
        runner.run(composed(1, 0.0, folder / "first"))  # loads everything
        begin = time.perf_counter()
        running = [start(folder / "hosts" / str(number), requests) for number in range(workers)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in running]
        took_s = time.perf_counter() - begin
        rows = [json.loads(line) for part in (results / "rows").iterdir() for line in part.read_text().splitlines()]
    asked = sorted(row["batch_size"] for row in rows)
    if set(codes) != {0} or asked != list(range(1, points + 1)):
        raise SystemExit(f"exit codes {set(codes)}, {len(asked)} rows of {len(set(asked))} points, not of {points}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return points * sleep_s / (workers * took_s), (used.ru_utime + used.ru_stime) / workers


if __name__ == "__main__":
    given = {key: float(value) for key, value in (word.split("=", 1) for word in sys.argv[1:])}
    hosts, count = int(given.get("workers", 64)), int(given.get("points", 768))
    found, processor_s = efficiency(hosts, count, given.get("sleep_s", 5.0))
    print(
        f"{hosts} workers, {count} points: efficiency {found:.1%} (asked {ASKED:.0%}), {processor_s:.2f} CPU s a worker"
    )
