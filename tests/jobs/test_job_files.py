"""Job files say what a cluster needs to run a command: hosts, chips, names of slices, one store."""

import math
import shlex
import shutil
import subprocess
from dataclasses import replace

import pytest
import yaml

from bench.cli.main import main
from bench.jobs.wanted import Wanted, wanted
from bench.sweep.catalog import load_chip, names
from engines.core.slice import slice_of

JAX = "engine=jax model=palm-8b results_dir=gs://bucket/rows"
TPUS = [name for name in names("hw") if name.startswith("tpu-")]


@pytest.fixture
def written(capsys):
    def call(kind, run, *words):
        assert main(["jobs", kind, f"run={run}", *words]) == 0
        return capsys.readouterr().out

    return call


@pytest.fixture
def refused(capsys):
    def call(kind, run, *words):
        assert main(["jobs", kind, f"run={run}", *words]) == 2
        return capsys.readouterr().err

    return call


def pods(manifest):
    """The pods of a Job's or JobSet's manifest: how many, and the spec of each."""
    jobs = [manifest["spec"]]
    copies = 1
    if manifest["kind"] == "JobSet":
        (job,) = manifest["spec"]["replicatedJobs"]
        jobs, copies = [job["template"]["spec"]], job["replicas"]
    assert jobs[0]["completionMode"] == "Indexed"
    assert jobs[0]["completions"] == jobs[0]["parallelism"]
    return copies * jobs[0]["completions"], jobs[0]["template"]["spec"]


def chips_of(pod):
    (limits,) = [container["resources"]["limits"] for container in pod["containers"]]
    return limits


@pytest.mark.parametrize("hw", TPUS)
def test_pods_have_all_chips_of_a_slice_and_its_topology(hw):
    """For every slice of at most 512 chips: hosts times chips a host, and the axes of the topology, are its chips."""
    one = wanted(f"{JAX} hw={hw} num_chips=4", 1)
    for chips in (2**power for power in range(10)):
        try:
            mesh = slice_of(load_chip(hw), chips).mesh_shape
        except Exception:
            continue
        host_chips = min(chips, 4)
        asked = replace(one, hosts=chips // host_chips, host_chips=host_chips, mesh_shape=mesh)
        assert asked.num_chips == chips
        axes = [int(size) for size in asked.topology.split("x")]
        assert math.prod(axes) == chips
        assert len(axes) == load_chip(hw).torus_dims


# Names of Google Kubernetes Engine's documentation and of `xpk workload create`, for slices of 16 chips.
@pytest.mark.parametrize(
    ("hw", "gke", "topology", "xpk"),
    [
        ("tpu-v4", "tpu-v4-podslice", "2x2x4", "v4-32"),
        ("tpu-v5e", "tpu-v5-lite-podslice", "4x4", "v5litepod-16"),
        ("tpu-v5p", "tpu-v5p-slice", "2x2x4", "v5p-32"),
        ("tpu-v6e", "tpu-v6e-slice", "4x4", "v6e-16"),
        ("tpu-7x", "tpu7x", "2x2x4", "tpu7x-32"),
    ],
)
def test_each_generation_has_its_names(written, hw, gke, topology, xpk):
    run = f"{JAX} hw={hw} num_chips=16"
    service, job = yaml.safe_load_all(written("kubernetes", run, "image=i"))
    count, pod = pods(job)
    assert count == 4
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": gke,
        "cloud.google.com/gke-tpu-topology": topology,
    }
    assert chips_of(pod) == {"google.com/tpu": 4}
    assert pod["subdomain"] == service["metadata"]["name"]
    line = shlex.split(written("xpk", run, "image=i", "cluster=c"))
    assert f"--tpu-type={xpk}" in line
    command = next(word for word in line if word.startswith("--command=")).partition("=")[2]
    assert shlex.split(command) == pod["containers"][0]["command"]
    assert "engine.coordinator=auto" in shlex.split(command)


def test_four_chips_of_a_torus_are_written_as_the_clouds_do():
    assert wanted(f"{JAX} hw=tpu-v5p num_chips=4", 1).topology == "2x2x1"
    assert wanted(f"{JAX} hw=tpu-v4 num_chips=8", 1).topology == "2x2x2"


def test_workers_without_chips_share_a_claim(written):
    text = written("kubernetes", "+sweep=palm results_dir=/mnt/results/palm", "workers=8", "image=i", "claim=rows")
    (job,) = yaml.safe_load_all(text)
    count, pod = pods(job)
    assert count == 8
    assert pod["containers"][0]["command"] == [
        *("shardbench", "run", "+sweep=palm", "results_dir=/mnt/results/palm", "other_hosts=true")
    ]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "rows"
    assert pod["containers"][0]["volumeMounts"][0]["mountPath"] == "/mnt/results"
    assert "nodeSelector" not in pod


def test_a_jobset_has_as_many_slices_as_workers(written):
    (jobset,) = yaml.safe_load_all(written("jobset", f"{JAX} hw=tpu-v5e num_chips=16", "image=i", "workers=3"))
    count, pod = pods(jobset)
    assert count == 3 * 4
    assert chips_of(pod) == {"google.com/tpu": 4}


def test_gpus_of_a_node(written):
    run = "engine=vllm model=llama-3-8b hw=h100-80gb num_chips=8 results_dir=gs://bucket/rows"
    (job,) = yaml.safe_load_all(written("kubernetes", run, "image=i", "workers=2"))
    count, pod = pods(job)
    assert (count, chips_of(pod)) == (2, {"nvidia.com/gpu": 8})
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}
    task = yaml.safe_load(written("skypilot", run, "workers=2"))
    assert task["resources"]["accelerators"] == "H100:8"
    assert task["num_nodes"] == 2


@pytest.mark.parametrize("kind", ["kubernetes", "jobset"])
def test_manifests_hold_for_the_schemas_of_kubernetes(written, kind):
    validate = pytest.importorskip("kubernetes_validate").validate
    for document in yaml.safe_load_all(written(kind, f"{JAX} hw=tpu-v4 num_chips=64", "image=i")):
        inner = document
        if document["kind"] == "JobSet":
            inner = {**document["spec"]["replicatedJobs"][0]["template"], "apiVersion": "batch/v1", "kind": "Job"}
        validate(inner, "1.31", strict=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    "run", ["+sweep=palm", "engine=torch hw=h100-80gb num_chips=16 model=gpt-175b tensor_parallel=16 phase=generate"]
)
def test_a_batch_script_is_one_of_bash(written, run):
    script = written("slurm", run, "partition=main", "minutes=90")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    options = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2] for line in script.splitlines() if "#SBATCH" in line
    )
    assert options["time"] == "90"
    assert options["partition"] == "main"
    assert options["signal"].startswith("TERM@")
    assert options["nodes"] == ("2" if "torch" in run else "1")


@pytest.mark.parametrize(
    ("kind", "run", "words", "said"),
    [
        ("kubernetes", f"{JAX} hw=tpu-v5e num_chips=[4,8]", ["image=i"], "are several slices"),
        ("kubernetes", f"{JAX} hw=tpu-v5e num_chips=16", ["image=i", "workers=2"], "use shardbench jobs jobset"),
        ("kubernetes", f"{JAX} hw=tpu-v5e num_chips=16", [], "image=: is required"),
        ("kubernetes", "engine=jax hw=tpu-v5e num_chips=4", ["image=i"], "would be lost with each pod"),
        ("kubernetes", f"{JAX} hw=mi300x num_chips=8", ["image=i"], "has no name in gke"),
        ("kubernetes", f"{JAX} hw=tpu-v5e num_chips=5", ["image=i"], "num_chips=5"),
        ("kubernetes", f"{JAX} hw=tpu-v5e num_chips=4", ["image=i", "name=A_b"], "is not the name of a job"),
        ("kubernetes", "-m model=tiny", ["image=i"], "is a flag"),
        ("kubernetes", "model='tiny", ["image=i"], "cannot be read"),
        ("xpk", f"{JAX} hw=tpu-v5e num_chips=4", ["image=i"], "cluster=: is required"),
        ("xpk", "+sweep=palm results_dir=gs://b/r", ["image=i", "cluster=c"], "measures nothing"),
        ("skypilot", f"{JAX} hw=tpu-7x num_chips=4", [], "has no name in skypilot"),
        ("slurm", "engine=vllm hw=h100-80gb num_chips=16 model=gpt-175b", [], "does not span 2 hosts"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(refused, kind, run, words, said):
    error = refused(kind, run, *words)
    assert said in error
    assert len(error.splitlines()) == 1


def test_a_command_without_chips_has_no_name_in_a_cloud():
    asked = Wanted(words=("+sweep=palm",), results_dir="gs://b/r", teams=1)
    with pytest.raises(Exception, match="measures nothing on a TPU or GPU"):
        asked.cloud("xpk")
