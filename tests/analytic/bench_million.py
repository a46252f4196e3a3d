"""A million points, layout choice included, as one array computation: prints the time and the peak memory.

Run it by itself: ``python tests/analytic/bench_million.py``. Models, slices, batches and lengths all vary from point to
point. The peak is that of this process, libraries included.
"""

import json
import resource
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.sweep.catalog import load_chip, load_model
from engines.analytic.grid import grid_of
from engines.analytic.predict import blocks
from engines.core.point import Point

POINTS = 1_000_000


def _peak_bytes() -> int:
    """The most memory that this process held. Where the kernel tells it of this program alone, that: what getrusage
    tells also counts the process that started it."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Build the grid, predict it block by block, print one JSON object."""
    bases = [
        Point(
            model=load_model(model),
            chip=load_chip("tpu-v4"),
            engine="analytic",
            phase=phase,
            num_chips=chips,
            batch_size=64,
            input_len=1984,
            output_len=64,
            weight_dtype=weight_dtype,
            collectives="throughput",
        )
        for model in ("palm-8b", "palm-62b", "palm-540b")
        for phase in ("prefill", "decode")
        for chips in (8, 16, 32, 64, 128, 256)
        for weight_dtype in ("bfloat16", "int8")
    ]
    random = np.random.default_rng(0)
    start = time.perf_counter()
    grid = grid_of(bases).take(random.integers(0, len(bases), POINTS))
    lengths = random.integers(1, 8192, POINTS).astype(float)
    grid = replace(grid, batch=2.0 ** random.integers(0, 11, POINTS), input_len=lengths, prompt_seen=lengths)
    built = time.perf_counter()
    fits = 0
    layouts = np.zeros(10, dtype=int)
    for _, prediction in blocks(grid):
        whole = prediction.combined()
        fits += int((whole.possible & whole.memory.fits).sum())
        layouts += np.bincount(prediction.decode.layout, minlength=10)
    done = time.perf_counter()
    peak = _peak_bytes()
    print(
        json.dumps(
            {
                "points": POINTS,
                "fits": fits,
                "build_s": round(built - start, 3),
                "predict_s": round(done - built, 3),
                "peak_bytes": peak,
                "layouts": layouts.tolist(),
            }
        )
    )


if __name__ == "__main__":
    main()
