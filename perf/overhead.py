"""What the harness takes of a sweep of measured points: wall time beside the points' own runs, which take none.

    python perf/overhead.py [points=1000]

prints a line for points in child processes, and one for points in the command's own process.
"""

import sys
import time
from pathlib import Path

from bench.cli.main import main
from engines.host.scratch import ScratchFolder

LIMITS_S = {"true": 0.3, "false": 0.005}
"""``engine.isolated`` → the most seconds that a point may take of the harness."""


def words(points: int, isolated: str, results_dir: Path) -> list[str]:
    """A command of so many points, each run once to warm up and once to be timed."""
    return [
        *("run", "model=tiny", "hw=cpu", "num_chips=1", "engine=jax", "input_len=16", "output_len=4"),
        *("engine._target_=perf.trivial_engine.TrivialEngine", f"engine.isolated={isolated}"),
        *("timing.min_time_s=0", "timing.max_time_s=0", "timing.min_samples=1"),
        *("timing.min_warmup_runs=1", "timing.warmup_window=1", "timing.max_warmup_runs=1"),
        *("wandb.mode=disabled", "print=none", f"results_dir={results_dir}"),
        f"batch_size=[{','.join(str(size + 1) for size in range(points))}]",
    ]


def seconds_a_point(points: int, isolated: str) -> float:
    """Wall time of the command, by its points: composing and storing are in it, starting Python is not."""
    with ScratchFolder() as folder:
        begin = time.perf_counter()
        code = main(words(points, isolated, folder / "results"))
        took_s = time.perf_counter() - begin
        stored = sum(len(part.read_text().splitlines()) for part in (folder / "results" / "rows").iterdir())
    if code or stored != points:
        raise SystemExit(f"exit code {code}, {stored} of {points} rows stored")
    return took_s / points


if __name__ == "__main__":
    asked = dict(word.split("=", 1) for word in sys.argv[1:])
    count = int(asked.get("points", "1000"))
    for how, limit_s in LIMITS_S.items():
        found_s = seconds_a_point(count, how)
        print(f"isolated={how}: {found_s * 1e3:.2f} ms a point of {count}, at most {limit_s * 1e3:g} ms are allowed")
