"""The line of xpk, and the task of SkyPilot."""

import shlex
from typing import Any, Final

from bench.jobs.place import Place
from bench.jobs.wanted import OBJECT_STORES, Wanted
from engines.core.errors import InvalidRequest

EXTRAS: Final = {"tpu": "tpu", "gpu": "gpu"}
"""Kind of chip → the extra of shardbench that runs on it."""
PORT: Final = 29500


def xpk(wanted: Wanted, place: Place, *, cluster: str) -> str:
    """The command line that creates the workload on a GKE cluster that xpk has made.

    Raises:
        InvalidRequest: the chip has no name in xpk, or the store is a folder, which xpk's pods do not share.
    """
    cloud, name = wanted.cloud("xpk")
    assert wanted.chip is not None
    if not wanted.results_dir.startswith(OBJECT_STORES):
        raise InvalidRequest("results_dir", wanted.results_dir, "would be lost with each pod", "use gs://BUCKET/NAME")
    if wanted.torchrun:
        raise InvalidRequest("engine", "torch", "spans hosts by torchrun", "use shardbench jobs slurm, or skypilot")
    if wanted.chip.kind == "tpu":
        shape = [f"--tpu-type={name}-{wanted.num_chips * cloud.counted_a_chip}", f"--num-slices={wanted.teams}"]
    else:
        shape = [f"--device-type={name}-{wanted.host_chips}", f"--num-nodes={wanted.teams * wanted.hosts}"]
    words = [
        *("xpk", "workload", "create", f"--cluster={cluster}", f"--workload={place.name}"),
        *shape,
        f"--docker-image={place.needed_image}",
        "--restart-on-exit-codes=143",
        f"--command={wanted.line}",
    ]
    return shlex.join(words) + "\n"


def skypilot(wanted: Wanted, place: Place) -> dict[str, Any]:
    """A task of SkyPilot: ``sky jobs launch`` starts it again where a spot machine is taken away.

    Raises:
        InvalidRequest: the chip has no name in SkyPilot, or the store is a folder, which machines do not share.
    """
    if not wanted.results_dir.startswith(OBJECT_STORES):
        raise InvalidRequest("results_dir", wanted.results_dir, "is a folder of each machine", "use gs://BUCKET/NAME")
    task: dict[str, Any] = {"name": place.name}
    resources: dict[str, Any] = {}
    extra = "jax"
    nodes = wanted.teams
    if wanted.chip is not None:
        cloud, name = wanted.cloud("skypilot")
        extra = EXTRAS[wanted.chip.kind]
        if wanted.chip.kind == "tpu":  # a slice of several hosts is one node of SkyPilot, which runs on all of them
            resources["accelerators"] = f"{name}-{wanted.num_chips * cloud.counted_a_chip}"
        else:
            resources["accelerators"] = f"{name}:{wanted.host_chips}"
            nodes = wanted.teams * wanted.hosts
    else:
        resources["cpus"] = "4+"
    if place.image is not None:
        resources["image_id"] = f"docker:{place.image}"
    task["resources"] = resources
    task["num_nodes"] = nodes
    scheme = "s3" if wanted.results_dir.startswith("s3") else "gcs"
    if place.image is None:
        torch = ",torch" if wanted.torchrun else ""
        task["setup"] = f"pip install 'shardbench[{extra},{scheme}{torch}]'"
    task["run"] = _torchrun(wanted) if wanted.torchrun else f"{wanted.line}\n"
    return task


def _torchrun(wanted: Wanted) -> str:
    return (
        f"{wanted.line} --cfg job > point.yaml\n"
        f"torchrun --nnodes=$SKYPILOT_NUM_NODES --node-rank=$SKYPILOT_NODE_RANK --nproc-per-node={wanted.host_chips} "
        f'--master-addr=$(echo "$SKYPILOT_NODE_IPS" | head -n 1) --master-port={PORT} '
        "-m engines.torch.worker point.yaml runs=10\n"
    )
