"""Runs sweeps of one store at once and kills what it likes of them; a process of its own, which loads everything once.

    python shared_sweeps.py FOLDER SEED ROUND...

For each round it prints a line of JSON: what a last sweep, which nobody disturbs, found and left.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from processes import state
from scripted_engine import ScriptedEngine  # noqa: F401 - loaded once, for all rounds

from bench.cli import interrupts
from bench.cli.main import main

POINTS = 8
SWEEPS = 2
MARK = "SHARDBENCH_ROUND"


def words(folder):
    sizes = ",".join(str(size) for size in range(1, POINTS + 1))
    return [
        *("run", "model=tiny", "hw=cpu", "num_chips=8", "engine=jax", "input_len=16", "output_len=4"),
        *("engine._target_=scripted_engine.ScriptedEngine", f"+engine.log={folder / 'log'}", "+engine.pause_s=0.01"),
        *("engine.timeout_s=60", "timing.min_time_s=0", "wandb.mode=disabled", "print=none", f"batch_size=[{sizes}]"),
        f"results_dir={folder / 'results'}",
    ]


def start(folder):
    """A process that runs the sweep, with its own handler of SIGTERM, as the command has it."""
    pid = os.fork()
    if pid == 0:
        interrupts.take_sigterm()
        with contextlib.suppress(BaseException):
            os._exit(main(words(folder)))
        os._exit(9)
    return pid


def descendants(mark):
    """Ids of living processes that a round has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return [pid for pid in found if state(pid) not in (None, "Z", "X")]


def disturb(folder, kind, sweeps, mark, moments):
    """Do something to a sweep, or to a process that one started, twice: mostly once points are on their way."""
    deadline = time.monotonic() + 30
    at_work = moments.random() < 0.9
    while at_work and not (folder / "log").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    for _ in range(2):
        time.sleep(moments.uniform(0.0, 0.5))
        victims = descendants(mark) if kind == "worker" else sweeps
        if victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(moments.choice(victims), KINDS[kind])
    if kind == "asleep":
        time.sleep(0.3)
        for pid in sweeps:
            os.kill(pid, signal.SIGCONT)


KINDS = {
    "nothing": 0,
    "command": signal.SIGKILL,
    "worker": signal.SIGKILL,
    "preempted": signal.SIGTERM,
    "interrupted": signal.SIGINT,
    "asleep": signal.SIGSTOP,
}


def play(folder, kind, seed):
    moments = random.Random(seed)
    os.environ[MARK] = mark = f"{os.getpid()}-{kind}-{seed}"
    os.environ["TMPDIR"] = str(folder / "temporary")
    (folder / "temporary").mkdir(parents=True)
    sweeps = []
    for _ in range(SWEEPS):
        sweeps.append(start(folder))
        time.sleep(moments.uniform(0, 0.2))
    disturb(folder, kind, sweeps, mark, moments)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in sweeps]
    orphans = left = None
    deadline = time.monotonic() + 30
    while (orphans := descendants(mark)) and time.monotonic() < deadline:
        time.sleep(0.02)
    last = os.waitstatus_to_exitcode(os.waitpid(start(folder), 0)[1])
    results = folder / "results"
    rows = [json.loads(line) for part in results.glob("rows/*.jsonl") for line in part.read_text().splitlines()]
    left = [str(path.relative_to(folder)) for path in (folder / "temporary").iterdir()]
    left += [str(path.relative_to(folder)) for path in results.iterdir() if path.name != "rows"]
    left += [path.name for path in (results / "rows").iterdir() if path.suffix != ".jsonl"]
    return {
        "kind": kind,
        "codes": codes,
        "last": last,
        "orphans": orphans,
        "left": left,
        "answered": sorted(row["batch_size"] for row in rows if row["status"] == "ok"),
        "failed": len([row for row in rows if row["status"] != "ok"]),
        "started": len((folder / "log").read_text().splitlines()),
    }


if __name__ == "__main__":
    place, first, *kinds = sys.argv[1:]
    sys.stdout.flush()
    for number, each in enumerate(kinds):
        found = play(Path(place) / f"{number}-{each}", each, int(first) + number)
        print(json.dumps(found), flush=True)
