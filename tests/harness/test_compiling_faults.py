"""A compile that runs out of time or dies costs its point; the real compiler, the real command line."""

import os
import signal
import subprocess

import pytest
from processes import wait_for


def words(*more):
    return [
        "run",
        "engine=compiled",
        "model=palm-8b",
        "hw=tpu-v4",
        "num_chips=8",
        "phase=decode",
        "input_len=32",
        "output_len=2",
        "engine.cache_dir=",
        "wandb.mode=disabled",
        *more,
    ]


@pytest.mark.slow
def test_out_of_time_is_a_row_and_the_next_point_is_asked(shardbench):
    # No process imports JAX and lowers a program in this time.
    done = shardbench(*words("batch_size=[8,16]", "print=json", "engine.timeout_s=0.1"), code=3)
    rows = shardbench.rows(done)
    assert [(row["batch_size"], row["status"]) for row in rows] == [(8, "timeout"), (16, "timeout")]
    assert all("engine.timeout_s=0.1" in row["error"] for row in rows)


@pytest.mark.slow
def test_a_compiler_that_is_killed_is_a_row_and_the_next_point_is_compiled(shardbench):
    """As the kernel ends a process that took too much memory."""
    running = shardbench.start(*words("batch_size=[8,16]", "print=none"))

    def workers():
        assert running.poll() is None
        return _workers(running.pid)

    os.kill(wait_for(workers)[0], signal.SIGKILL)
    assert running.wait(timeout=300) == 3
    rows = {row["batch_size"]: row for row in shardbench.stored()}
    assert (rows[8]["status"], rows[16]["status"]) == ("failed", "ok")
    assert "SIGKILL" in rows[8]["error"]
    assert rows[16]["latency_s"] > 0


@pytest.mark.slow
def test_a_compiler_that_takes_too_much_memory_is_a_row_and_the_next_point_is_asked(shardbench):
    # JAX and the compiler's library alone take more.
    done = shardbench(*words("batch_size=[8,16]", "print=json", "engine.memory_limit_bytes=1.5e8"), code=3)
    rows = shardbench.rows(done)
    assert [(row["batch_size"], row["status"]) for row in rows] == [(8, "failed"), (16, "failed")]
    assert all("engine.memory_limit_bytes=1.5e+08" in row["error"] for row in rows)


def _workers(pid):
    """Children of a process that are its workers."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "bench.run.worker" in line]
