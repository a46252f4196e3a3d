"""Launchers for real: workers of a pool, of submitit, of SLURM (a stand-in) and of Ray share a sweep; one is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import wait_for

from bench.run.launch import _of_workers
from bench.sweep.composer import Composer

HERE = Path(__file__).parent
PLUGINS = HERE / "plugins"
BARRED, FAILS = 114, 106
pytestmark = [
    pytest.mark.slow(seconds=20),
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found on Linux"),
]


@pytest.fixture
def sweep(shardbench, tmp_path):
    """Starts workers on a sweep of the scripted engine; returns the process."""

    def start(launcher, *words, workers=2, env=None):
        out, err = (tmp_path / name for name in ("stdout", "stderr"))
        command = shardbench.words(
            *shardbench.scripted("-m", f"hydra/launcher={launcher}", f"workers={workers}", *words)
        )
        path = os.pathsep.join([str(PLUGINS), shardbench.env["PYTHONPATH"]])
        own = {**shardbench.env, "PYTHONPATH": path, **(env or {})}
        with out.open("w") as stdout, err.open("w") as stderr:
            return subprocess.Popen(command, cwd=tmp_path, env=own, stdout=stdout, stderr=stderr)

    return start


def sizes(rows):
    return sorted(row["batch_size"] for row in rows)


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def kill_whoever_holds_the_barred_point(shardbench, kill=lambda worker: os.kill(worker, signal.SIGKILL)):
    """Kill -9 the worker whose child has begun the point that does not end; then let it end."""
    (shardbench.folder / "barred").touch()

    def child():
        return next((pid for pid, size in shardbench.executed() if size == BARRED), None)

    kill(parent_of(wait_for(child)))
    (shardbench.folder / "barred").unlink()


def test_workers_need_a_launcher(shardbench, monkeypatch, capsys):
    assert shardbench.here(monkeypatch, *shardbench.scripted("workers=2", "batch_size=1")) == 2
    assert "workers=2: needs a launcher to start them" in capsys.readouterr().err
    assert shardbench.here(monkeypatch, *shardbench.scripted("-m", "workers=0", "batch_size=1")) == 2


def test_a_pool_is_as_large_as_there_are_workers():
    with Composer().ready() as composer:
        config = composer.whole(["workers=7"], multirun=True)
    config.hydra.launcher = {"n_jobs": -1}
    words = _of_workers(config, ["batch_size=1,2", "hydra.job.name=x"], 7)
    assert "hydra.launcher.n_jobs=7" in words
    assert "+worker=0,1,2,3,4,5,6" in words
    assert not any(word.startswith("batch_size") for word in words)
    config.hydra.launcher = {"n_jobs": 2}
    assert not any("n_jobs" in word for word in _of_workers(config, [], 7))


def test_a_worker_that_comes_late_finds_all_done_and_each_point_is_told_once(shardbench, sweep, tmp_path):
    """A point that fails fails once, not once in each worker."""
    done = sweep("other_process", f"batch_size=[1,2,{FAILS}]", "print=json")
    assert done.wait(240) == 3
    assert sorted(size for _, size in shardbench.executed()) == [1, 2, FAILS]
    assert (tmp_path / "stdout").read_text().count('"batch_size": ') == 3
    assert sizes(shardbench.stored()) == [1, 2, FAILS]
    assert "2 workers launched" in (tmp_path / "stderr").read_text()


def test_a_pool_of_joblib(shardbench, sweep, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    done = sweep("joblib", "batch_size=[1,2,3,4]", "print=none", "+engine.pause_s=0.2")
    assert done.wait(240) == 0, (tmp_path / "stderr").read_text()
    assert sorted(size for _, size in shardbench.executed()) == [1, 2, 3, 4]
    assert sizes(shardbench.stored()) == [1, 2, 3, 4]


def test_submitit_goes_on_where_a_worker_is_killed(shardbench, sweep, tmp_path):
    pytest.importorskip("submitit")
    done = sweep("submitit_local", f"batch_size=[{BARRED},1,2,3]", "print=none")
    kill_whoever_holds_the_barred_point(shardbench)
    assert done.wait(240) == 0, (tmp_path / "stderr").read_text()
    assert sizes(shardbench.stored()) == [1, 2, 3, BARRED]
    assert sorted(size for _, size in shardbench.executed()) == [1, 2, 3, BARRED, BARRED]
    assert "1 of 2 workers ended without a report; the others did their points" in (tmp_path / "stderr").read_text()


def test_ray_starts_a_killed_worker_again(shardbench, sweep, tmp_path):
    pytest.importorskip("ray")
    done = sweep("ray", f"batch_size=[{BARRED},1,2,3]", "print=none")
    kill_whoever_holds_the_barred_point(shardbench)
    assert done.wait(240) == 0, (tmp_path / "stderr").read_text()
    assert sizes(shardbench.stored()) == [1, 2, 3, BARRED]
    assert sorted(size for _, size in shardbench.executed()) == [1, 2, 3, BARRED, BARRED]
    assert "ended without a report" not in (tmp_path / "stderr").read_text()


def test_what_a_lost_node_of_ray_had_is_done_by_the_others(shardbench, sweep, tmp_path):
    """A cluster of two nodes, each with room for one worker: one node is gone with all that ran on it."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        of_raylet = {node.all_processes["raylet"][0].process.pid: node for node in nodes}

        def kill_node(worker):
            while worker not in of_raylet:
                worker = parent_of(worker)
            cluster.remove_node(of_raylet[worker], allow_graceful=False)

        address = f"hydra.launcher.init.address='{cluster.address}'"
        done = sweep("ray", f"batch_size=[{BARRED},1,2,3]", "print=none", address)
        kill_whoever_holds_the_barred_point(shardbench, kill_node)
        assert done.wait(240) == 0, (tmp_path / "stderr").read_text()
    finally:
        cluster.shutdown()
    assert sizes(shardbench.stored()) == [1, 2, 3, BARRED]
    assert sorted(size for _, size in shardbench.executed()) == [1, 2, 3, BARRED, BARRED]


def test_an_array_of_slurm(shardbench, sweep, tmp_path):
    """With a stand-in for sbatch and srun that runs the script of submitit on this machine."""
    pytest.importorskip("submitit")
    env = stand_in(tmp_path)
    words = ["batch_size=[1,2,3]", "print=none", "hydra.launcher.partition=gpu", "hydra.launcher.gpus_per_node=8"]
    done = sweep("submitit_slurm", *words, env=env)
    assert done.wait(240) == 0, (tmp_path / "stderr").read_text()
    assert sizes(shardbench.stored()) == [1, 2, 3]
    script = (Path(env["SLURM_STAND_IN"]) / "1.sh").read_text()
    assert "#SBATCH --array=0-1" in script
    assert "#SBATCH --partition=gpu" in script
    assert "#SBATCH --gpus-per-node=8" in script


def test_a_batch_script_of_ours_runs(shardbench, tmp_path, monkeypatch, capsys):
    """``shardbench jobs slurm``: two tasks of an array, one store."""
    words = " ".join(shardbench.scripted("batch_size=[1,2,3]", "print=none", f"results_dir={shardbench.results}")[1:])
    assert shardbench.here(monkeypatch, "jobs", "slurm", f"run={words}", "workers=2", f"out={tmp_path / 'job.sh'}") == 0
    env = stand_in(tmp_path)
    command = tmp_path / "slurm" / "shardbench"
    command.write_text(f'#!/bin/bash\nexec {sys.executable} -m bench.cli.main "$@"\n')
    command.chmod(0o755)
    subprocess.run(["sbatch", str(tmp_path / "job.sh")], env={**shardbench.env, **env}, check=True, capture_output=True)
    running = [int(path.read_text()) for path in Path(env["SLURM_STAND_IN"]).glob("*.pid")]
    assert len(running) == 2
    wait_for(lambda: sizes(shardbench.stored()) == [1, 2, 3] and not (shardbench.results / "leases").exists())
    assert sorted(size for _, size in shardbench.executed()) == [1, 2, 3]


def stand_in(folder):
    """An environment in which SLURM's commands are those of the stand-in."""
    place, jobs = folder / "slurm", folder / "jobs"
    place.mkdir()
    jobs.mkdir()
    for name in ("sbatch", "srun", "sacct", "squeue", "scancel", "scontrol"):
        (place / name).symlink_to(HERE / "slurm" / "slurm.py")
    path = os.pathsep.join([str(place), os.environ["PATH"]])
    return {"PATH": path, "SLURM_STAND_IN": str(jobs)}


def test_optuna_prunes_what_has_no_time_and_finds_the_best(shardbench, monkeypatch, capsys):
    """All four trials of a space of four: two have a time, one does not fit, and one is refused."""
    pytest.importorskip("optuna")
    words = ["run", "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=20", "model=palm-62b", "hw=tpu-v4"]
    words += ["num_chips=8", "batch_size=64,128,4096,-1", "wandb.mode=disabled", "print=none"]
    assert shardbench.here(monkeypatch, *words) == 0
    assert sizes(shardbench.stored()) == [64, 128, 4096]
    told = capsys.readouterr().err
    assert "4 trials, 2 of them pruned" in told
    best = min((row for row in shardbench.stored() if row["status"] == "ok"), key=lambda row: row["latency_s"])
    assert f"latency_s={best['latency_s']:.6g} with batch_size={best['batch_size']}" in told
    assert shardbench.here(monkeypatch, *words, "hydra.sweeper.objective=latency") == 2


def test_optuna_searches_points_that_are_measured(shardbench, monkeypatch, capsys):
    """Each trial is timed, in a process of its own; asked again, the store answers and finds the same."""
    pytest.importorskip("optuna")
    words = shardbench.scripted("-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "print=none")
    words += [f"batch_size=1,2,{FAILS}", "wandb.mode=disabled", "hydra.sweeper.objective=[latency_s]", "retry=[]"]
    told = []
    for _ in range(2):
        assert shardbench.here(monkeypatch, *words) == 0
        told.append(capsys.readouterr().err)
    assert "3 trials, 1 of them pruned" in told[0]
    first, again = (text.rpartition("optuna: latency_s=")[2] for text in told)
    assert first == again
    assert "with batch_size=" in first
    assert sizes(shardbench.stored()) == [1, 2, FAILS]
    assert sorted(size for _, size in shardbench.executed()) == [1, 2, FAILS]
    assert {row["source"] for row in shardbench.stored()} == {"measured"}
