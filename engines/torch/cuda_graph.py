"""CUDA graphs: work that is recorded once and replayed without launching each kernel from the host."""

from collections.abc import Callable

import torch


class Recorder:
    """Records work on one device. Its graphs share one memory pool, so they must be replayed one at a time.

    Recorded work reads and writes tensors that exist outside of it, at the same addresses each time; its own temporary
    tensors are overwritten when the next graph is replayed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.graphs: list[torch.cuda.CUDAGraph] = []

    def warm_up(self, work: Callable[[], None]) -> None:
        """Run ``work`` on a side stream, as recording will: libraries allocate their workspaces at first use."""
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            work()
        torch.cuda.current_stream(self.device).wait_stream(side)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record ``work`` without running it; returns a function that replays it."""
        graph = torch.cuda.CUDAGraph()
        pool = self.graphs[0].pool() if self.graphs else None
        # Other threads (NCCL's watchdog) may go on calling CUDA while this one records.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            work()
        self.graphs.append(graph)
        return graph.replay


def recorder_of(device: torch.device) -> Recorder | None:
    """A recorder for a GPU; None for other devices, which have no CUDA graphs."""
    return Recorder(device) if device.type == "cuda" else None
