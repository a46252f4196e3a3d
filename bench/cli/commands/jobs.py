"""``shardbench jobs``: the file that runs a command on a cluster."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.cli.args import Key
from bench.cli.values import FilePath, Integer
from engines.core.errors import InvalidRequest

SUMMARY: Final = "write the job file that runs a command on Kubernetes, SLURM, xpk or SkyPilot, with one store for all"
VERBS: Final[Mapping[str, str]] = {
    "kubernetes": "an indexed Job, one pod a worker or a host of a slice (GKE's labels for TPUs and GPUs)",
    "jobset": "a JobSet: several slices of several hosts",
    "xpk": "the line that creates the workload on a GKE cluster of xpk",
    "skypilot": "a task for sky launch or sky jobs launch",
    "slurm": "a script for sbatch; torchrun where engine=torch needs several nodes",
}
KEYS: Final = (
    Key("run", None, "the words of shardbench run, quoted: 'engine=jax hw=tpu-v5e num_chips=16'", required=True),
    Key("out", None, "the file to write (default: stdout)", kind=FilePath()),
    Key("name", "shardbench", "the name of the job"),
    Key("workers", 1, "how many slices, nodes or pods share the points", kind=Integer(1)),
    Key("image", None, "kubernetes, jobset, xpk, skypilot: a container image with shardbench"),
    Key("claim", None, "kubernetes, jobset: a PersistentVolumeClaim that all pods may write, for results_dir"),
    Key("mount", "/mnt/results", "kubernetes, jobset: where the claim is mounted"),
    Key("cluster", None, "xpk: the cluster"),
    Key("minutes", 240, "slurm: the most minutes of the job", kind=Integer(1)),
    Key("partition", None, "slurm: the partition"),
)
EXAMPLES: Final = (
    "shardbench jobs kubernetes run='+sweep=palm results_dir=/mnt/results/palm' workers=8 image=IMAGE claim=results",
    "shardbench jobs jobset run='engine=jax hw=tpu-v5e num_chips=16 results_dir=gs://BUCKET/rows' image=IMAGE",
    "shardbench jobs slurm run='engine=torch hw=h100-80gb num_chips=16 tensor_parallel=16' out=job.sh",
)


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Write or print the file. Returns 0.

    Raises:
        ShardbenchError: the command is invalid, or needs what the system does not have.
    """
    if verb is None:
        raise InvalidRequest("verb", "", "is required", f"use one of {', '.join(VERBS)}")
    text = _text(verb, settings)
    if settings["out"] is None:
        print(text, end="")
        return 0
    Path(settings["out"]).write_text(text, encoding="utf-8")
    print(settings["out"])
    return 0


def _text(verb: str, settings: Mapping[str, Any]) -> str:
    import yaml

    from bench.jobs import clouds, kubernetes, slurm
    from bench.jobs.place import Place
    from bench.jobs.wanted import wanted

    found = wanted(settings["run"], settings["workers"])
    place = Place(**{key: settings[key] for key in ("name", "image", "claim", "mount")})
    if verb == "slurm":
        return slurm.script(found, place, minutes=settings["minutes"], partition=settings["partition"])
    if verb == "xpk":
        if settings["cluster"] is None:
            raise InvalidRequest("cluster", "", "is required", "add cluster=NAME, as in xpk cluster list")
        return clouds.xpk(found, place, cluster=settings["cluster"])
    if verb == "skypilot":
        return str(yaml.safe_dump(clouds.skypilot(found, place), sort_keys=False, width=1000))
    documents = kubernetes.job(found, place) if verb == "kubernetes" else kubernetes.jobset(found, place)
    return str(yaml.safe_dump_all(documents, sort_keys=False, width=1000))
