"""kill -9 at any moment, of any process of a command: no process, no temporary folder and no half file stays behind."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from processes import state, wait_for

PROCESSES = Path("/proc")
pytestmark = [
    pytest.mark.slow(seconds=8),
    pytest.mark.skipif(not PROCESSES.is_dir(), reason="processes are found on Linux"),
]
CPU = ["run", "model=tiny", "hw=cpu", "phase=decode", "input_len=8", "output_len=2"]
RANKS = [*CPU, "num_chips=2", "tensor_parallel=2", "engine=torch", "wandb.mode=disabled", "batch_size=1"]


class Watched:
    """A command whose processes are known by a variable of their environment, with a folder for temporary files."""

    def __init__(self, shardbench, number):
        self.mark = f"SHARDBENCH_WATCHED={os.getpid()}-{shardbench.folder.name}-{number}"
        self.temporary = shardbench.folder / f"temporary-{number}"
        self.temporary.mkdir()
        self.shardbench = shardbench

    def start(self, *words, **more):
        name, _, value = self.mark.partition("=")
        env = self.shardbench.env | {name: value, "TMPDIR": str(self.temporary)} | more
        return subprocess.Popen(
            self.shardbench.words(*words),
            cwd=self.shardbench.folder,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def processes(self):
        """Ids and command lines of all that the command started and that still runs."""
        found = {}
        for folder in PROCESSES.glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
        return {pid: line for pid, line in found.items() if state(pid) not in (None, "Z", "X")}

    def is_gone(self):
        # PyTorch keeps a cache there for all processes of a user, by design.
        left = [path for path in self.temporary.iterdir() if not path.name.startswith("torchinductor_")]
        return not self.processes() and not left


def left_in(folder):
    """Names under a folder that belong to no finished file."""
    return [path for path in folder.rglob("*") if path.name.startswith(".") or path.suffix in (".tmp", ".part")]


def killed_at(watched, after_s, chosen, *words, **more):
    """Run a command for so long, then kill those of its processes that ``chosen`` picks; return when all is gone."""
    command = watched.start(*words, **more)
    time.sleep(after_s)
    for pid in chosen(command.pid, watched.processes()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    command.wait()
    wait_for(watched.is_gone)


def the_command(pid, found):
    return [pid]


def a_worker(pid, found):
    return [each for each, line in found.items() if "worker" in line][:1]


def all_but_keepers(pid, found):
    """As a session that is closed: everything but what cleans up."""
    return [each for each, line in found.items() if "keep_scratch" not in line]


def any_one(pid, found):
    return random.Random(len(found) + pid).sample(sorted(found), min(1, len(found)))


@pytest.fixture
def moments_of_each(pytestconfig):
    """At how many moments a command is killed; fault_rounds kills commands and workers at sixteen more."""
    return 4 if pytestconfig.getoption("thorough") else 2


@pytest.mark.parametrize("chosen", [the_command, a_worker, all_but_keepers, any_one])
@pytest.mark.thorough(every=2)
def test_nothing_stays_behind_a_kill_at_any_moment(shardbench, chosen, moments_of_each):
    moments = random.Random(chosen.__name__)
    for number in range(moments_of_each):
        watched = Watched(shardbench, number)
        sizes = ",".join(str(size) for size in range(1, 30))
        words = shardbench.scripted(f"batch_size=[{sizes}]", "resume=false", "print=none", "+engine.pause_s=0.001")
        killed_at(watched, moments.uniform(0, 2.5), chosen, *words)
        assert left_in(shardbench.results) == []


@pytest.mark.parametrize("chosen", [the_command, a_worker, all_but_keepers])
def test_no_rank_stays_behind(shardbench, chosen):
    watched = Watched(shardbench, 0)
    command = watched.start(*RANKS)
    wait_for(lambda: sum("engines.torch.worker" in line for line in watched.processes().values()) == 2)
    assert list(watched.temporary.iterdir())  # the ranks meet in it
    time.sleep(random.Random(chosen.__name__).uniform(0, 2))
    for pid in chosen(command.pid, watched.processes()):
        os.kill(pid, signal.SIGKILL)
    command.wait()
    wait_for(watched.is_gone)


def test_nothing_stays_behind_weights_and_biases(shardbench, moments_of_each):
    pytest.importorskip("wandb")
    moments = random.Random(0)
    for number in range(moments_of_each):
        watched = Watched(shardbench, number)
        words = shardbench.scripted("batch_size=[1,2,3]", "resume=false", "print=none")
        words.remove("wandb.mode=disabled")
        offline = {"WANDB_MODE": "offline", "WANDB__SERVICE_WAIT": "240"}
        killed_at(watched, moments.uniform(1, 4), the_command, *words, "wandb.mode=offline", **offline)


def test_nothing_stays_behind_a_report(shardbench):
    grid = ["run", "model=palm-8b", "hw=tpu-v4", "num_chips=8", "engine=analytic", "phase=decode", "output_len=2"]
    shardbench(*grid, "batch_size=[8,16]", "input_len=[8,16]", "wandb.mode=disabled", "print=none")
    moments = random.Random(1)
    for number in range(4):
        watched = Watched(shardbench, number)
        killed_at(watched, moments.uniform(0.5, 3), the_command, "report", "out=report")
        assert not left_in(shardbench.folder / "report")


def test_a_night_takes_its_run_with_it(shardbench):
    watched = Watched(shardbench, 0)
    command = watched.start("nightly", "sweep=palm", "out=nights")
    wait_for(lambda: any(" run " in line for line in watched.processes().values()))
    os.kill(command.pid, signal.SIGKILL)
    command.wait()
    wait_for(watched.is_gone)


def test_what_ends_as_it_should_leaves_nothing_either(shardbench):
    watched = Watched(shardbench, 0)
    assert watched.start(*shardbench.scripted("batch_size=[1,101,2]", "print=none")).wait() == 3
    wait_for(watched.is_gone)
