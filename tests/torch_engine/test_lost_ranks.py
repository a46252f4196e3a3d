"""A rank that dies, runs out of memory or hangs; and a parent that is killed."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import PATIENCE_S, state, wait_for, wait_until_gone
from torch_cases import point

from bench.measure.timing import TimingConfig
from bench.run.make_row import PointTask
from bench.run.worker import answer
from engines.core.errors import OutOfMemory, TimedOut
from engines.torch import rank_group
from engines.torch.engine import TorchEngine
from engines.torch.job import Job
from engines.torch.rank_group import ChildProcesses, RankFailed

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]


def group_of_two(timeout_s=PATIENCE_S, **changes):
    return ChildProcesses(Job(point=point(tensor=2, **changes), seed=0, decode="eager", threads=1), timeout_s)


def pids(group):
    return [process.pid for process in group.processes]


@pytest.fixture
def patient(monkeypatch):
    """However late the end of a rank is seen, it is told; and no word comes later than its loss explains."""
    monkeypatch.setattr(rank_group, "GRACE_S", PATIENCE_S)


@pytest.mark.usefixtures("patient")
def test_a_rank_that_dies_ends_the_others():
    group = group_of_two()
    ranks = pids(group)
    os.kill(ranks[1], signal.SIGKILL)
    # Not TimedOut: the other is not waited for.
    with pytest.raises(RankFailed, match="prefill: rank 1 of 2 was killed by SIGKILL"):
        group.call("prefill")
    wait_until_gone(*ranks)
    with pytest.raises(RankFailed, match="the ranks have ended"):
        group.call("decode")
    group.close()


def test_what_a_rank_raises_is_told():
    group = group_of_two()
    ranks = pids(group)
    with pytest.raises(RankFailed, match=r"__init__: rank 0 of 2 TypeError: .*missing 3 required"):
        group.call("__init__")
    wait_until_gone(*ranks)


def test_a_hung_collective_ends_at_the_time_out():
    group = group_of_two()
    ranks = pids(group)
    group.timeout_s = 1
    os.kill(ranks[0], signal.SIGSTOP)  # rank 1 then waits for it in an all-reduce
    with pytest.raises(TimedOut, match=r"decode: rank 0, 1 of 2 did not reply within engine\.rank_timeout_s=1 s"):
        group.call("decode")
    wait_until_gone(*ranks)


def test_a_rank_that_runs_out_of_memory_says_so():
    group = group_of_two(batch_size=64, input_len=128)
    ranks = pids(group)
    used = int(Path(f"/proc/{ranks[1]}/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    resource.prlimit(ranks[1], resource.RLIMIT_AS, (used, used))
    with pytest.raises(OutOfMemory, match=r"batch_size=64: tiny does not fit 2 × cpu \(rank 1: "):
        group.call("prefill")
    wait_until_gone(*ranks)


def test_kill_9_of_the_parent_ends_ranks_that_hang(tmp_path):
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from test_lost_ranks import group_of_two, pids\n"
        "group = group_of_two()\n"
        "print(*pids(group), flush=True)\n"
        "import os, signal; os.kill(pids(group)[0], signal.SIGSTOP)\n"
        "group.call('decode')\n"
    )
    here = Path(__file__).parent
    with subprocess.Popen(
        [sys.executable, "-c", script, str(here), str(here.parent)], stdout=subprocess.PIPE, text=True
    ) as parent:
        ranks = [int(word) for word in parent.stdout.readline().split()]
        assert len(ranks) == 2
        wait_for(lambda: state(ranks[0]) == "T")
        time.sleep(0.5)  # then rank 1 is most likely held in a collective, and must end either way
        parent.kill()
    wait_until_gone(*ranks)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(("signal_number", "status"), [(signal.SIGKILL, "failed"), (signal.SIGSTOP, "timeout")])
def test_the_row_of_a_point_whose_rank_is_lost_has_a_status(monkeypatch, signal_number, status):
    ranks = []
    original = ChildProcesses.call

    def call(self, method):
        if method == "outputs" and not ranks:
            ranks.extend(pids(self))
            self.timeout_s = 2 if signal_number == signal.SIGSTOP else PATIENCE_S
            os.kill(ranks[1], signal_number)
        return original(self, method)

    monkeypatch.setattr(ChildProcesses, "call", call)
    asked = point(tensor=2)
    question = PointTask(point=asked, point_id="0" * 16, source="measured", sweep=None)
    row = answer(TorchEngine(), question, TimingConfig(min_time_s=0))
    assert row.status == status
    # On a busy machine the other may be as late as who is stopped.
    assert re.match("outputs: rank (0, )?1 of 2", row.error)
    assert not row.valid
    wait_until_gone(*ranks)
