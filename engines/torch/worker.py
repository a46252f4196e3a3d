"""A rank as a process of its own, a child of the engine."""

import sys
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


def main(words: list[str]) -> int:
    """``words``: the number of a pipe. Returns the exit code."""
    serve(int(words[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
