"""Ranks of the torch engine that are forked from one process which has imported PyTorch, rather than each importing it.

What starts and ends a rank of the engine's own is tested in ``torch_engine/test_lost_ranks`` and with whole points.
"""

import contextlib
import functools
import multiprocessing
import os

from engines.torch import rank_group
from engines.torch.rank_group import ChildProcesses


class ForkedRanks(ChildProcesses):
    """A group that answers as the engine's own does."""

    def _start(self, rank):
        ours, theirs = _context().Pipe()
        process = _context().Process(
            target=_serve, args=(theirs, rank_group._environment(self.job)), name=f"rank-{rank}", daemon=True
        )
        process.start()
        theirs.close()
        self.processes.append(_LikePopen(process))
        self.pipes.append(ours)
        with contextlib.suppress(BrokenPipeError):
            ours.send((self.job, rank, f"file://{self.folder.path}/rendezvous"))


class _LikePopen:
    """The part of ``subprocess.Popen`` that a group needs."""

    stdin = None

    def __init__(self, process):
        self._process = process
        self.kill = process.kill

    def wait(self, timeout=None):
        self._process.join(timeout)
        return self._process.exitcode


@functools.cache
def _context():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["engines.torch.rank", "engines.torch.worker", "torch._dynamo", "numpy.random"])
    return context


def _serve(pipe, variables):
    os.environ.update(variables)
    from engines.torch.worker import answer_calls

    answer_calls(pipe)
