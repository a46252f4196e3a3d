"""One job in several processes: two command lines on this machine, four devices each."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from builders.points import point as build_point
from processes import PATIENCE_S, wait_for, wait_until_gone
from quick_engines import FEW_RUNS

from bench.measure.timing import TimingConfig
from bench.run.keys import code_id, point_id
from bench.run.lockstep import Lockstep
from bench.run.make_row import PointTask
from bench.run.worker import answer
from engines.core.engine import JobProcess
from engines.core.errors import InvalidRequest, OutOfMemory
from engines.jax.engine import JaxEngine
from engines.jax.multihost import process_of
from engines.jax.settings import Settings

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
QUICK = tuple(f"timing.{key}={value}" for key, value in FEW_RUNS.items())


@pytest.fixture
def port():
    """A port that is held for the test: whoever else asks for any is given another, and JAX, which shares, gets it."""
    with held_port(0) as held:
        yield held.getsockname()[1]


def held_port(number):
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", number))
    return held


def slurm_port():
    """One of the last 4096, of which JAX takes one by the job's number; runs of this test at once take others."""
    for number in range(os.getpid(), os.getpid() + 4096):
        with contextlib.suppress(OSError):
            return held_port(61440 + number % 4096)
    raise AssertionError("all are taken")


class Job:
    """The same words in every process, as one types them in two terminals."""

    def __init__(self, shardbench, port, *words):
        self.shardbench = shardbench
        model = ("model=tiny", "model.num_layers=1", "model.d_model=64", "model.d_ff=128", "model.vocab_size=96")
        asked = ("hw=cpu", "num_chips=8", "mesh_shape=[2,2,2]", "ffn_layout=ws_2d", "weight_dtype=float32")
        where = (
            "engine=jax",
            "engine._target_=quick_engines.QuickJaxEngine",
            f"engine.coordinator=127.0.0.1:{port}",
            "engine.num_processes=2",
        )
        self.words = ("run", *model, *asked, *where, *QUICK, "input_len=4", "output_len=2", "print=json", *words)

    def start(self, process):
        return subprocess.Popen(
            self.shardbench.words(*self.words, f"engine.process_id={process}"),
            cwd=self.shardbench.folder,
            env=self.shardbench.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def ended(process):
    """Exit code, stdout and stderr."""
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow(seconds=30)
def test_two_processes_measure_together_and_the_first_writes(shardbench, port):
    job = Job(shardbench, port, "phase=[prefill,decode]", "batch_size=8", "offload=nvme", "offload_kv=host")
    first, second = job.start(0), job.start(1)
    code, out, _ = ended(second)
    assert code == 0
    assert out == ""
    code, out, err = ended(first)
    assert code == 0, err
    rows = shardbench.stored()
    assert [row["phase"] for row in rows] == ["prefill", "decode"]
    assert len(out.splitlines()) == 2
    for row in rows:
        assert row["valid"], row["invalid_reason"]
        assert row["num_chips"] == 8
        assert row["mesh_shape"] == [2, 2, 2]
        assert 0 < row["max_relative_error"] < 1e-5
        assert row["details"]["num_processes"] == 2
        assert row["details"]["hosts"] == [socket.gethostname()] * 2

    # Both are stored. The first is of this source: the second process is told so by the first, from which alone it can
    # know. The other is of another source: the first finds that its program is the same, and both do without measuring.
    for part in shardbench.results.glob("rows/*.jsonl"):
        lines = part.read_text().splitlines()
        of_decode = [line for line in lines if json.loads(line)["phase"] == "decode"]
        others = [line.replace(rows[1]["code_id"], "another source") for line in of_decode]
        part.write_text("".join(f"{line}\n" for line in [*(each for each in lines if each not in of_decode), *others]))
    again = [job.start(process) for process in (0, 1)]
    assert [ended(each)[0] for each in again] == [0, 0]
    assert [row["program_id"] for row in shardbench.stored()] == [row["program_id"] for row in rows]


@linux
@pytest.mark.slow(seconds=50)
@pytest.mark.thorough
def test_lost_processes_cost_their_point_and_no_more(shardbench, port):
    """However late this process sees a row: only which points are lost may then differ."""

    def statuses():
        return "".join(row["status"][0] for row in shardbench.stored())

    sizes = range(8, 49, 8)
    asked = f"batch_size={list(sizes)}".replace(" ", "")
    # On a busy machine a child may start many seconds after the other: so long must who is left alone wait at the end.
    job = Job(shardbench, port, "phase=prefill", asked, "engine.join_timeout_s=15", "timing.max_samples=3")
    first, second = job.start(0), job.start(1)
    # The second's child dies at some point: it comes back for the next.
    wait_for(lambda: "o" in statuses())
    workers = [*children(second.pid), *children(first.pid)]
    os.kill(workers[0], signal.SIGKILL)
    wait_for(lambda: "fo" in statuses())
    workers += [*children(second.pid), *children(first.pid)]
    second.kill()
    second.wait()
    code, _, err = ended(first)
    assert code == 3, err
    # The last few waited for the second in vain, all but one that may have begun when it left for good.
    assert re.fullmatch("o+fo+f?t+", statuses()), [row["error"] for row in shardbench.stored()]
    assert len(statuses()) == len(sizes)
    wait_until_gone(*workers)


@pytest.mark.slow(seconds=15)
def test_who_waits_in_vain_says_so(shardbench, port):
    job = Job(shardbench, port, "phase=prefill", "batch_size=[8,16]", "engine.join_timeout_s=1")
    code, out, err = ended(job.start(0))
    rows = shardbench.rows(type("Done", (), {"stdout": out}))
    assert code == 3, err
    assert [row["status"] for row in rows] == ["timeout", "timeout"]
    assert all("engine.join_timeout_s=1 s" in row["error"] for row in rows)
    code, out, err = ended(job.start(1))
    assert (code, out) == (3, "")
    assert "process 0 did not join within engine.join_timeout_s=1 s" in err


@pytest.mark.slow
def test_the_place_comes_from_the_cluster():
    words = [sys.executable, "-m", "engines.jax.multihost", str(PATIENCE_S)]
    with slurm_port() as held:
        # JAX takes the port by the job's number, modulo 4096.
        job_id = held.getsockname()[1] - 61440
        environment = {"SLURM_JOB_ID": str(job_id), "SLURM_STEP_NODELIST": "localhost", "SLURM_LOCALID": "0"}
        tasks = [
            subprocess.Popen(
                words,
                env={**os.environ, **environment, "SLURM_NTASKS": "2", "SLURM_PROCID": str(process)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for process in (0, 1)
        ]
        told = [ended(each)[1] for each in tasks]
    assert told == ['{"index": 0, "count": 2}\n', '{"index": 1, "count": 2}\n']


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"num_processes": 2}, "engine.coordinator=null: is not the address of process 0"),
        ({"num_processes": 2, "coordinator": "here"}, "engine.coordinator=here"),
        ({"num_processes": 2, "coordinator": "a:1", "process_id": 2}, "engine.process_id=2: must be < .*use 0 to 1"),
        ({"num_processes": 0}, "engine.num_processes=0"),
        ({"num_processes": 2, "coordinator": "a:1", "process_id": -1}, "engine.process_id=-1"),
    ],
)
def test_a_process_that_cannot_be(settings, says):
    with pytest.raises(InvalidRequest, match=says):
        process_of(Settings(**settings))


def test_a_process_by_the_settings():
    assert process_of(Settings()) is None
    assert process_of(Settings(coordinator="a:1", num_processes=3, process_id=2)) == JobProcess(2, 3)


point = partial(
    build_point,
    model="tiny",
    hw="cpu",
    engine="jax",
    phase="prefill",
    num_chips=8,
    batch_size=8,
    input_len=4,
    output_len=0,
)


def test_each_process_brings_its_share_of_the_devices_and_its_number_is_no_other_answer():
    engines = [JaxEngine(coordinator="a:1", num_processes=3, process_id=process) for process in (0, 1)]
    assert engines[0].environment([point()])["XLA_FLAGS"].endswith("device_count=3")
    assert point_id(engines[0], point()) == point_id(engines[1], point()) != point_id(JaxEngine(), point())


class Threads:
    """A team of threads of this process."""

    def __init__(self, count):
        self.barrier = threading.Barrier(count, timeout=30)
        self.values = [None] * count

    def member(self, process):
        team = type("Member", (), {})()
        team.process = JobProcess(process, len(self.values))
        team.exchange = lambda value: self.exchange(process, value)
        return team

    def exchange(self, process, value):
        self.values[process] = value
        self.barrier.wait()
        everyones = list(self.values)
        self.barrier.wait()
        return everyones


def rows_of(engines, asked):
    """Each process's row of a point, and whether it is still in step."""
    threads, found = Threads(len(engines)), {}

    def run(process):
        together = Lockstep(threads.member(process))
        row = answer(engines[process], asked, TimingConfig(min_time_s=0), together)
        found[process] = (row.status, row.error, together.in_step)

    running = [threading.Thread(target=run, args=(process,)) for process in range(len(engines))]
    for each in running:
        each.start()
    for each in running:
        each.join()
    return [found[process] for process in range(len(engines))]


class Refuses(JaxEngine):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def prepare(self, _point):
        if self.error is not None:
            raise self.error
        return type("Prepared", (), {"close": lambda _self: None})()


def test_what_one_process_refuses_is_refused_by_all():
    engines = [Refuses(None), Refuses(OutOfMemory("does not fit here"))]
    asked = PointTask(
        point=point(),
        point_id=point_id(engines[0], point()),
        code_id=code_id(engines[0]),
        source="measured",
        sweep=None,
    )
    assert rows_of(engines, asked) == [("oom", "does not fit here", True)] * 2


def test_processes_that_are_not_alike_do_not_measure_together():
    asked = PointTask(point=point(), point_id="0" * 16, source="measured", sweep=None)
    found = rows_of([Refuses(None), Refuses(None)], asked)
    assert [status for status, _, _ in found] == ["failed", "failed"]
    assert "start the same command" in found[0][1]
