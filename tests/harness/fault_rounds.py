"""Rounds of two sweeps on one store, in each of which something goes wrong at moments drawn by a seed.

    python fault_rounds.py FOLDER SEED ROUND...

For each round it prints a line of JSON: what the sweeps and a last one, which nobody disturbs, have left. Processes,
signals and files are real, but a worker is forked (``forked_worker``), so that a round takes a fraction of a second;
``shared_sweeps`` plays some with whole command lines.
"""

import contextlib
import ctypes
import errno
import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

from forked_worker import ForkedWorker
from processes import state
from scripted_engine import ScriptedEngine  # noqa: F401 - loaded once, for all rounds

from bench.cli import interrupts
from bench.rows import lease, store
from bench.rows.add import add
from bench.rows.repair import inspect, repair
from bench.rows.store import Store
from bench.run import child, jobs, make_row, runner
from bench.storage.folder import Folders
from bench.sweep.composer import Composer
from bench.sweep.requests import requests_of
from engines.core.errors import ShardbenchError

POINTS = list(range(1, 7))
SWEEPS = 2
PR_SET_CHILD_SUBREAPER = 36
SLEEP_S = 0.5
"""Longer than a lease lasts here."""
WORDS = (
    *("model=tiny", "hw=cpu", "num_chips=8", "engine=jax", "input_len=16", "output_len=4", "print=none"),
    *("engine._target_=scripted_engine.ScriptedEngine", "+engine.log=LOG", "+engine.pause_s=0.004"),
    *("engine.timeout_s=60", "timing.min_time_s=0", "timing.min_samples=2", "timing.max_samples=2"),
    *("timing.min_warmup_runs=1", "timing.warmup_window=1", "timing.max_warmup_runs=2"),
    *("wandb.mode=disabled", f"batch_size={POINTS}".replace(" ", "")),
)


def requests_for(folder, composed, **options):
    """The request for a round's own folder, composed once for all."""
    found = []
    for request in composed:
        jobs = [replace(job, engine_config={**job.engine_config, "log": str(folder / "log")}) for job in request.jobs]
        results = {"results_dir": str(folder / "results")}
        found.append(replace(request, jobs=jobs, options=replace(request.options, **results, **options)))
    return found


def start(folder, composed, number, fault=None, **options):
    """A sweep in a process of its own, with SIGTERM as the command has it; what it prints goes to a file."""
    pid = os.fork()
    if pid:
        return pid
    code = 9
    try:
        interrupts.take_sigterm()
        printed = os.open(folder / f"printed-{number}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        if fault is not None:
            fault()
        try:
            code = runner.run(requests_for(folder, composed, **options)).exit_code
        except ShardbenchError as error:
            print(error, file=sys.stderr)
            code = 2
        except KeyboardInterrupt as error:
            code = interrupts.exit_code(error)
        sys.stdout.flush()
    finally:
        os._exit(code)


def descendants():
    """Ids of living processes that a sweep has started: orphans become this process's children."""
    found, left = [], [os.getpid()]
    while left:
        for task in Path(f"/proc/{left.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                pids = [int(word) for word in task.read_text().split()]
                found += pids
                left += pids
    return [pid for pid in found if state(pid) not in (None, "Z", "X")]


def send(pids, number):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_one(moments, sweeps, folder):
    send([moments.choice(sweeps)], signal.SIGKILL)


def kill_a_worker(moments, sweeps, folder):
    send(moments.sample(sorted(set(descendants()) - set(sweeps)) or sweeps, 1), signal.SIGKILL)


def kill_all(moments, sweeps, folder):
    send(sorted(descendants(), key=lambda _: moments.random()), signal.SIGKILL)


def preempt(moments, sweeps, folder):
    """As a batch system does: all processes of one job get the signal."""
    send(descendants() if moments.random() < 0.5 else [moments.choice(sweeps)], signal.SIGTERM)


def interrupt(moments, sweeps, folder):
    send([moments.choice(sweeps)], signal.SIGINT)


def sleep(moments, sweeps, folder):
    """The sweep alone sleeps, or its worker too, for longer than a lease lasts."""
    asleep = descendants() if moments.random() < 0.2 else [moments.choice(sweeps)]
    send(asleep, signal.SIGSTOP)
    time.sleep(moments.uniform(0, 2 * SLEEP_S))
    send(asleep, signal.SIGCONT)


def damage(moments, sweeps, folder):
    """A file of rows loses its end, as on a disk that lies."""
    parts = sorted((folder / "results" / "rows").glob("*.jsonl"))
    if parts:
        part = moments.choice(parts)
        part.write_bytes(part.read_bytes()[: moments.randrange(1, 200)])


def refuses(moments, number, lasts):
    """Writing fails at some moment: once in a while, or from then on."""

    def set_up():
        calls, first = iter(range(10**6)), moments.randrange(1, 6)
        genuine = Folders.write

        def write(self, path, content):
            call = next(calls)
            if call >= first and (lasts or moments.random() < 0.5):
                raise OSError(number, os.strerror(number))
            genuine(self, path, content)

        Folders.write = write

    return set_up


def set_back(moments):
    """The clock of one machine, or of the storage, is set back or forth while it runs."""

    def set_up():
        hours, calls = moments.choice([-1000, -1, 1]), iter(range(10**6))
        after = moments.randrange(0, 10)

        class Clock(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime.now(tz) + timedelta(hours=hours if next(calls) >= after else 0)

        store.datetime = make_row.datetime = Clock
        genuine = Folders.now_ns
        Folders.now_ns = lambda self, probe: genuine(self, probe) + hours * 3600 * 10**9

    return set_up


HAPPENS = {
    "nothing": None,
    "command": kill_one,
    "worker": kill_a_worker,
    "everything": kill_all,
    "preempted": preempt,
    "interrupted": interrupt,
    "asleep": sleep,
    "damaged": damage,
    "full": None,
    "read-only": None,
    "clock": None,
}
"""Kind of a round → what happens in it from outside."""


def fault_in(kind, moments):
    """Kind of a round → what is wrong inside one of its sweeps from the start."""
    if kind == "full":
        return refuses(moments, errno.ENOSPC, lasts=False)
    if kind == "read-only":
        return refuses(moments, errno.EROFS, lasts=True)
    return set_back(moments) if kind == "clock" else None


def play(folder, kind, seed, composed):
    moments = random.Random(seed)
    (folder / "temporary").mkdir(parents=True)
    os.environ["TMPDIR"] = str(folder / "temporary")
    grace = {"grace_s": moments.choice([0, 5, 0.05])} if kind in ("preempted", "interrupted") else {}
    sweeps = []
    for number in range(SWEEPS):
        fault = fault_in(kind, moments) if number == 0 else None
        sweeps.append(start(folder, composed, number, fault, **grace))
        time.sleep(moments.uniform(0, 0.03))
    if HAPPENS[kind] is not None:
        for _ in range(moments.choice([1, 1, 2, 3])):
            time.sleep(moments.uniform(0, 0.15))
            HAPPENS[kind](moments, sweeps, folder)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in sweeps]
    deadline = time.monotonic() + 30
    while (orphans := descendants()) and time.monotonic() < deadline:
        time.sleep(0.005)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return {"kind": kind, "seed": seed, "codes": codes, "orphans": orphans, **what_is_left(folder, kind, composed)}


def what_is_left(folder, kind, composed):
    """After what a user does who reads what was printed, and runs the command again."""
    results = folder / "results"
    kept = Store(results)
    printed = [path for path in sorted(folder.glob("printed-*")) if "\n{" in f"\n{path.read_text()}"]
    if printed:
        add(kept, printed)
    found = inspect(kept)
    if found.faults:
        repair(kept, found)
    lines = [line for path in folder.glob("printed-*") for line in path.read_text().splitlines()]
    last = os.waitstatus_to_exitcode(os.waitpid(start(folder, composed, "last"), 0)[1])
    rows = Store(results).load()
    files = [row for part in kept.parts() for _, _, row, _ in store.read_part(part)]
    left = [str(path.relative_to(folder)) for path in (folder / "temporary").iterdir()]
    left += [path.name for path in results.iterdir() if path.name not in ("rows", "broken")]
    left += [path.name for path in (results / "rows").iterdir() if path.suffix != ".jsonl"]
    return {
        "last": last,
        "answered": sorted(row.batch_size for row in rows if row.status == "ok"),
        "failed": sorted(row.batch_size for row in rows if row.status != "ok"),
        "in_files": sorted(row.batch_size for row in files if row is not None and row.status == "ok"),
        "half": files.count(None),
        "left": left,
        "started": len((folder / "log").read_text().splitlines()),
        "taken_over": sum(row.claim is not None and not row.claim.endswith(".0") for row in rows),
        "told": [line for line in lines if not line.startswith("{")],
        "printed": len(printed),
    }


def main(place, seed, kinds):
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    child.subprocess = SimpleNamespace(Popen=ForkedWorker, PIPE=-1)
    lease.LEASE_S, lease.RENEW_S = 0.2, 0.05
    jobs.POLL_S = 0.05
    place.mkdir(parents=True, exist_ok=True)
    with Composer(None, "config").ready() as composer:
        composed = requests_of(composer, WORDS)
    runner.run(requests_for(place / "first", composed))  # what is remembered by a process is known from here on
    for number, kind in enumerate(kinds):
        print(json.dumps(play(place / f"{number}-{kind}", kind, seed + number, composed)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
