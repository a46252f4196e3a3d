"""A sweep that compiles: one process against several workers of this machine, all of them with empty caches.

    python -m perf.workers [workers=4] [layers=4]

prints wall and processor seconds of 32 points of ``engine=compiled``: in one process, with ``max_parallel``, and with
``hydra/launcher=joblib`` (the extra ``joblib``). Each is the whole command, from starting Python to its end.
"""

import resource
import subprocess
import sys
import time

from engines.host import python
from engines.host.scratch import ScratchFolder

POINTS = 32


def words(layers: int) -> list[str]:
    """The sweep: two slices, two contexts and eight batches of a model of few layers."""
    return [
        *("engine=compiled", "hw=tpu-v5e", "num_chips=[4,8]", "model=palm-8b", f"model.num_layers={layers}"),
        *("phase=decode", "input_len=[128,256]", "output_len=8", "batch_size=[4,8,12,16,20,24,28,32]"),
        *("wandb.mode=disabled", "print=none"),
    ]


def seconds(how: list[str], layers: int) -> tuple[float, float]:
    """Wall and processor seconds of the command with the words ``how`` before those of the sweep."""
    with ScratchFolder() as folder:
        own = [f"results_dir={folder / 'results'}", f"engine.cache_dir={folder / 'cache'}"]
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [*python.module_words("bench.cli.main", "run"), *how, *words(layers), *own]
        subprocess.run(command, check=True, cwd=folder, env=python.environment({}))
        took_s, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
        rows = sum(len(part.read_text().splitlines()) for part in (folder / "results" / "rows").iterdir())
    if rows != POINTS:
        raise SystemExit(f"{rows} rows of {POINTS} points")
    return took_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    given = {key: int(value) for key, value in (word.split("=", 1) for word in sys.argv[1:])}
    count = given.get("workers", 4)
    ways = {
        "one process": [],
        f"max_parallel={count}": [f"max_parallel={count}"],
        f"workers={count}": ["-m", "hydra/launcher=joblib", f"workers={count}"],
    }
    for name, how in ways.items():
        wall_s, processor_s = seconds(how, given.get("layers", 4))
        print(f"{name}: {wall_s:.1f} s, {processor_s:.1f} s of the processor", flush=True)
