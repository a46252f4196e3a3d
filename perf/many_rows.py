"""How long a store of a million rows takes to load and filter, and how much memory.

    python perf/many_rows.py [rows=1000000] [folder=FOLDER]

makes a store in ``folder`` (kept if it is named, and used again) from the rows of ``results/``, each with a point and a
time of its own; then, each in a process of its own: makes its columns once, filters them into rows, and into a frame.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.rows.select import frame, select
from bench.rows.store import Store
from engines.host.python import environment
from engines.host.scratch import ScratchFolder

ROOT = Path(__file__).parents[1]
ROWS_OF_A_PART = 1000
WHEN, POINT = "@when@", "@point@"
LIMIT_S, LIMIT_BYTES = 5.0, 2e9


def make(results_dir: Path, rows: int) -> None:
    """Write a store of so many rows."""
    patterns = []
    for part in sorted(ROOT.glob("results/**/rows/*.jsonl")):
        for line in part.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            patterns.append(json.dumps({**row, "created_at": WHEN, "point_id": POINT}))
    store = Store(results_dir)
    for begin in range(0, rows, ROWS_OF_A_PART):
        store.write_part(
            patterns[number % len(patterns)].replace(POINT, f"{number:016x}").replace(WHEN, _moment(number))
            for number in range(begin, min(rows, begin + ROWS_OF_A_PART))
        )


def _moment(number: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000+00:00", time.gmtime(1_700_000_000 + number))


def to_rows(store: Store) -> str:
    """All rows of a model and a kind of evidence that stand for their points."""
    where = {"model": ["palm-62b"], "engine": ["compiled"]}
    return f"{len(select(store, where))} rows of engine=compiled model=palm-62b"


def to_frame(store: Store) -> str:
    """Some columns of all rows."""
    columns = ["model", "hw", "engine", "source", "num_chips", "batch_size", "latency_s", "mfu", "valid", "created_at"]
    found = frame(store, columns)
    return f"{len(found.columns)} columns of all {len(found)} rows, {found['mfu'].notna().sum()} with an MFU"


def nothing(store: Store) -> str:
    """No row: what is left is to make the columns, once."""
    return f"{len(select(store, {'model': ['none']}))} rows, and columns of all others made"


STEPS: dict[str, Callable[[Store], str]] = {"first": nothing, "rows": to_rows, "frame": to_frame}


def main(words: list[str]) -> None:
    """Run every step in a process of its own, or with ``step=`` one in this."""
    asked = dict(word.split("=", 1) for word in words)
    if "step" in asked:
        begin, began_s = time.perf_counter(), time.process_time()
        said = STEPS[asked["step"]](Store(asked["folder"]))
        took_s, busy_s = time.perf_counter() - begin, time.process_time() - began_s
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(
            f"{asked['step']}: {took_s:.2f} s ({busy_s:.2f} s of a processor), {used / 1e9:.2f} GB: {said}", flush=True
        )
        return
    with ScratchFolder() as scratch:
        folder = Path(asked.get("folder", scratch / "results"))
        if not Store(folder).parts():
            begin = time.perf_counter()
            make(folder, int(asked.get("rows", "1000000")))
            print(f"written in {time.perf_counter() - begin:.0f} s", flush=True)
        for step in STEPS:
            command = [sys.executable, __file__, f"step={step}", f"folder={folder}"]
            subprocess.run(command, check=True, env=environment())
        print(f"allowed for each but the first: {LIMIT_S:g} s, {LIMIT_BYTES / 1e9:g} GB")


if __name__ == "__main__":
    main(sys.argv[1:])
