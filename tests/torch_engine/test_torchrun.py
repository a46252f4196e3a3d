"""A point over the ranks of several torchrun agents: rank 0 stores its row, whoever started the others."""

import os
import socket
import subprocess
import sys

import pytest
from processes import PATIENCE_S
from torch_cases import point

from bench.rows.store import Store
from engines.core.engine import JobProcess
from engines.core.errors import Unsupported
from engines.torch import torchrun

QUICK = (
    *("timing.min_time_s=0", "timing.min_samples=2", "timing.max_samples=4", "timing.min_warmup_runs=1"),
    *("timing.warmup_window=1", "timing.warmup_tolerance=100", "timing.max_relative_ci=100"),
)
ASKED = (
    *("model=tiny", "model.num_layers=2", "hw=cpu", "engine=torch", "weight_dtype=float32"),
    *("tensor_parallel=1", "phase=generate", "input_len=5", "output_len=4"),
)


def started(folder, node, port, *words):
    """The agent of one node, with one process."""
    launch = ("--nnodes=2", "--nproc-per-node=1", f"--node-rank={node}", "--master-addr=127.0.0.1")
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", *launch, f"--master-port={port}"),
            *("-m", "bench.cli.main", "run", *ASKED, *QUICK, *words),
        ],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow(seconds=40)
def test_rank_0_of_two_agents_stores_the_rows(tmp_path):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    # The third point is not one of two ranks: it is refused, and costs the others nothing.
    both = "{num_chips:2,pipeline_parallel:2,batch_size:[2,4]}"
    words = (f"points=[{both},{{num_chips:1,pipeline_parallel:1,batch_size:2}}]", "print=json")
    agents = [started(tmp_path, node, port, *words) for node in (1, 0)]
    (_, told), (out, err) = (agent.communicate(timeout=PATIENCE_S) for agent in agents)
    assert [agent.returncode for agent in agents] == [0, 0], err + told
    rows = Store(tmp_path / "results").load()
    assert [(row.batch_size, row.status) for row in rows] == [(2, "ok"), (4, "ok"), (2, "unsupported")]
    assert "torchrun started 2 processes" in rows[2].error
    assert len(out.splitlines()) == 3
    assert "follows process 0" in told
    for row in rows[:2]:
        assert row.valid, row.invalid_reason
        assert (row.num_chips, row.pipeline_parallel) == (2, 2)
        assert row.details["hosts"] == [socket.gethostname()] * 2
        assert row.max_relative_error < 1e-5
        assert row.latency_s > 0


def test_which_process_of_torchrun_this_is(monkeypatch):
    asked = point("falcon", tensor=2)
    assert torchrun.process_of() is None
    assert torchrun.ranks_here(asked) == 2
    for name, value in ((torchrun.LAUNCHED, "a"), ("RANK", "1"), ("WORLD_SIZE", "1"), ("LOCAL_WORLD_SIZE", "1")):
        monkeypatch.setenv(name, value)
    assert torchrun.process_of() is None
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert torchrun.process_of() == JobProcess(1, 2)
    assert torchrun.ranks_here(asked) == 1
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(Unsupported, match=r"num_chips=2: torchrun started 4 processes, each a rank; use num_chips=4"):
        torchrun.ranks_here(asked)
