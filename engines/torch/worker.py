"""A rank as a process of its own: a child of the engine, or started by ``torchrun``.

``torchrun --nproc-per-node=2 -m engines.torch.worker point.yaml [runs=10]`` runs the point of a composed config (what
``shardbench run … --cfg job`` prints) and writes its result as JSON on rank 0.
"""

import json
import os
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from engines.core.errors import ShardbenchError
from engines.host.parent import end_at_end_of_stdin, end_with_parent


def serve(descriptor: int) -> None:
    """Load the job that the pipe sends, then call the methods that it names and reply, until it closes."""
    end_with_parent()
    end_at_end_of_stdin()
    answer_calls(Connection(descriptor))


def answer_calls(pipe: "Connection[Any, Any]") -> None:
    """As :func:`serve`, in whatever process."""
    job, number, init_method = pipe.recv()
    rank: Any = None

    def load() -> None:
        nonlocal rank
        from engines.torch.collectives import join
        from engines.torch.devices import device_of
        from engines.torch.rank import Rank

        join(device_of(job.point, number), init_method, number, job.point.num_chips, job.timeout_s)
        rank = Rank(job, number, number)

    pipe.send(_answer(load))
    while True:
        try:
            method = pipe.recv()
        except EOFError:
            return
        pipe.send(_answer(getattr(rank, method)))


def _answer(call: Any) -> tuple[str, Any]:
    from engines.torch.devices import is_out_of_memory

    try:
        return "ok", call()
    except ShardbenchError as error:
        return "unsupported", str(error)
    except Exception as error:  # the parent reports it
        text = " ".join(str(error).split())
        return ("oom", text[:300]) if is_out_of_memory(error) else ("failed", f"{type(error).__name__}: {text[:300]}")


def under_torchrun(words: list[str]) -> None:
    """Run a point as torchrun's ranks; rank 0 prints the result."""
    import torch.distributed as dist

    from engines.torch.collectives import join
    from engines.torch.devices import device_of
    from engines.torch.rank import Rank
    from engines.torch.result import Outputs, verification
    from engines.torch.torchrun_config import job_from

    runs = next((int(word.partition("=")[2]) for word in words[1:] if word.startswith("runs=")), 10)
    number, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    job, engine = job_from(words[0], count, int(os.environ["LOCAL_WORLD_SIZE"]))
    local_rank = int(os.environ.get("LOCAL_RANK", number))
    join(device_of(job.point, local_rank), "env://", number, count, job.timeout_s)
    rank = Rank(job, number, local_rank)
    stages = [name for name in ("prefill", "decode") if job.point.phase in (name, "generate")]
    samples: dict[str, list[float]] = {name: [] for name in stages}
    for run in range(runs + 1):
        for name in stages:
            dist.barrier()
            start = time.perf_counter()
            getattr(rank, name)()
            dist.barrier()
            if run:  # the first run warms up
                samples[name].append(time.perf_counter() - start)
    gathered: list[Any] = [None] * count
    dist.all_gather_object(gathered, (rank.outputs(), rank.facts()))
    if number == 0:
        outputs = Outputs.joined([each[0] for each in gathered])
        checked = verification(job, outputs, engine.tolerance_of(job.point))
        result = {
            **{key: value for key, value in job.point.axes().items() if value is not None},
            "samples_s": samples,
            "valid": checked.ok,
            "max_relative_error": checked.max_relative_error,
            "ranks": [each[1] for each in gathered],
        }
        print(json.dumps(result), flush=True)
    dist.destroy_process_group()


def main(words: list[str]) -> int:
    """``words``: the number of a pipe, or a composed config's file and options. Returns the exit code."""
    if len(words) == 1 and words[0].isdigit():
        serve(int(words[0]))
        return 0
    if not words or "RANK" not in os.environ:
        print("usage: torchrun --nproc-per-node=N -m engines.torch.worker POINT.yaml [runs=10]", file=sys.stderr)
        return 2
    try:
        under_torchrun(words)
    except ShardbenchError as error:
        print(f"engines.torch.worker: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
