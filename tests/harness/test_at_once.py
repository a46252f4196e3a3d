"""Several points at once, and never two measured ones on one device; and how many processes a sweep starts."""

import os
import subprocess
import sys

import pytest
from builders.points import point
from processes import wait_for, wait_until_gone

from bench.measure.timing import TimingConfig
from bench.run.devices import Devices, core_sets, devices_of, folder
from bench.run.environment import cpu_affinity
from bench.run.make_row import PointTask
from bench.run.parallel import Beside, Workers
from bench.sweep.catalog import load_customised
from engines.core.chip import Chip

TWO_CORES = pytest.mark.skipif(len(cpu_affinity()) < 2, reason="needs two cores")


def test_twenty_points_take_one_process_and_each_failure_one_more(shardbench, monkeypatch):
    sizes = ",".join(map(str, range(1, 19)))
    assert shardbench.here(monkeypatch, *shardbench.scripted(f"batch_size=[{sizes},106,101]", "print=none")) == 3
    pids = [pid for pid, _ in shardbench.executed()]
    assert len(pids) == 20
    assert len(set(pids)) == 2  # 106 ends the first; 101 was the last
    assert len(set(pids[:19])) == 1


def test_a_measured_point_needs_no_process_of_its_own(shardbench, monkeypatch):
    words = shardbench.scripted("batch_size=[1,106,2]", "engine.isolated=false", "print=none")
    assert shardbench.here(monkeypatch, *words) == 3
    assert shardbench.executed() == [(os.getpid(), 1), (os.getpid(), 106), (os.getpid(), 2)]
    by_size = {row["batch_size"]: row["status"] for row in shardbench.stored()}
    assert by_size == {1: "ok", 106: "failed", 2: "ok"}


@TWO_CORES
def test_measured_points_with_cores_of_their_own_run_at_once(shardbench, monkeypatch, capsys):
    words = shardbench.scripted("batch_size=[1,2,3,4,101]", "max_parallel=2", "+engine.cores=1", "print=table")
    assert shardbench.here(monkeypatch, *words, "+engine.pause_s=0.02") == 3
    executed = shardbench.executed()
    assert sorted(size for _, size in executed) == [1, 2, 3, 4, 101]
    rows = shardbench.stored()
    cores = {tuple(row["cpu_affinity"]) for row in rows if row["status"] == "ok"}
    assert all(len(each) == 1 for each in cores)
    assert len(cores) == 2
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table if " measured " in line] == ["1", "2", "3", "4", "101"]


def test_without_cores_of_their_own_they_are_measured_one_at_a_time(shardbench, monkeypatch, capsys):
    words = shardbench.scripted("batch_size=[1,2]", "max_parallel=2", "print=none")
    assert shardbench.here(monkeypatch, *words) == 0
    assert "measured one at a time; +engine.cores=1 gives each a core of its own" in capsys.readouterr().err
    assert len({pid for pid, _ in shardbench.executed()}) == 1


@TWO_CORES
def test_ctrl_c_ends_all_children(shardbench):
    command = shardbench.start(*shardbench.scripted("batch_size=[103,114]", "max_parallel=2", "+engine.cores=1"))
    (shardbench.folder / "barred").touch()
    wait_for(lambda: len(shardbench.executed()) == 2)
    command.send_signal(2)
    assert command.wait(timeout=60) == 130
    wait_until_gone(*(pid for pid, _ in shardbench.executed()))
    assert not shardbench.stored()


def test_a_group_is_one_childs_and_what_is_refused_is_told(shardbench, monkeypatch):
    """By the workers alone: points whose batch is the same but for its tens go together."""
    for name, value in shardbench.env.items():
        monkeypatch.setenv(name, value)
    config = {"_target_": "scripted_engine.ScriptedEngine", "name": "jax", "isolated": True, "timeout_s": 60}
    config |= {"log": str(shardbench.log), "pause_s": 0.01}
    sizes = [1, 11, 21, 2, 12, 22, 3]
    tasks = [
        PointTask(
            point=point(
                "tiny", "cpu", num_chips=8, engine="jax", phase="decode", batch_size=size, input_len=16, output_len=4
            ),
            point_id=str(size),
            source="measured",
            sweep=None,
        )
        for size in sizes
    ]
    workers = Workers(config, TimingConfig(min_time_s=0), {}, lambda point: point.batch_size % 10)
    rows = workers.evaluate(tasks, lambda task: task.point.batch_size != 12, [Beside(), Beside()])
    found = {task.point.batch_size: row for task, row in rows}
    assert sorted(found) == sorted(sizes)
    assert [size for size, row in found.items() if row is None] == [12]
    pids = {size: pid for pid, size in shardbench.executed()}
    assert len({pids[size] for size in (1, 11, 21)}) == 1
    assert len({pids[size] for size in (2, 22)}) == 1


def test_a_device_is_one_users_until_that_ends():
    mine, others = Devices(), Devices()
    assert mine.try_take("core-0")
    assert not others.try_take("core-0")
    assert others.try_take("core-1")
    mine.release()
    assert others.try_take("core-0")
    others.close()
    code = "from bench.run.devices import Devices; d = Devices(); print(d.try_take('core-0'), flush=True); input()"
    held = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert held.stdout.readline() == "True\n"
    assert not mine.try_take("core-0")
    assert (folder() / "core-0").read_text() == f"process {held.pid}"
    held.kill()  # whatever ends it
    held.wait()
    wait_for(lambda: mine.try_take("core-0"))
    mine.close()


def test_who_waits_says_for_whom(monkeypatch, capsys):
    mine, others = Devices(), Devices()
    assert others.try_take("tpu")
    times = iter(range(0, 100, 3))
    monkeypatch.setattr("bench.run.devices.time.monotonic", lambda: next(times))
    monkeypatch.setattr("bench.run.devices.time.sleep", lambda seconds: others.release())
    mine.take(["tpu"])
    assert capsys.readouterr().err == f"shardbench: waits for tpu, on which process {os.getpid()} measures\n"
    mine.close()


def test_devices_of_chips(monkeypatch):
    def chip(name):
        return Chip.from_config(load_customised("hw", name))

    assert devices_of(chip("cpu"), [3, 5]) == ["core-3", "core-5"]
    assert devices_of(chip("cpu")) == [f"core-{core}" for core in cpu_affinity()]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-8a/1")
    assert devices_of(chip("h100-80gb")) == ["gpu-2", "gpu-GPU-8a1"]
    assert devices_of(chip("tpu-v4")) == ["tpu"]


@TWO_CORES
def test_cores_that_somebody_measures_on_come_last():
    others = Devices()
    first = cpu_affinity()[0]
    assert others.try_take(f"core-{first}")
    assert first not in core_sets(1, 1)[0]
    others.close()
    sets = core_sets(1, 100)
    assert sorted(core for each in sets for core in each) == cpu_affinity()
