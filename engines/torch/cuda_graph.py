"""CUDA graphs: work recorded once and replayed as a whole, without the host's part in it."""

from collections.abc import Callable

import torch


class Recorder:
    """Records work on one device. What it recorded shares memory, so it is replayed one after the other.

    Recorded work reads and writes tensors that live on outside of it, at the same addresses each time; what it makes
    for itself is lost when the next is replayed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.graphs: list[torch.cuda.CUDAGraph] = []

    def warm_up(self, work: Callable[[], None]) -> None:
        """Run it on a stream of its own, as recording will: libraries make what they need at their first use."""
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            work()
        torch.cuda.current_stream(self.device).wait_stream(side)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record it, without running it; returns what replays it."""
        graph = torch.cuda.CUDAGraph()
        pool = self.graphs[0].pool() if self.graphs else None
        # Other threads (NCCL's watchdog) may go on calling CUDA while this one records.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            work()
        self.graphs.append(graph)
        return graph.replay


def recorder_of(device: torch.device) -> Recorder | None:
    """A recorder for the device; None where nothing can be recorded."""
    return Recorder(device) if device.type == "cuda" else None
