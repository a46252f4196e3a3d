"""Kubernetes: a Job whose pods share a store, or a JobSet of several slices."""

from typing import Any, Final

from bench.jobs.place import Place
from bench.jobs.wanted import Wanted
from engines.core.errors import InvalidRequest

TOPOLOGY: Final = "cloud.google.com/gke-tpu-topology"
TPU: Final = "cloud.google.com/gke-tpu-accelerator"
GPU: Final = "cloud.google.com/gke-accelerator"
JOBSET: Final = "jobset.x-k8s.io/v1alpha2"
ONE_SLICE_A_POOL: Final = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
RETRIES: Final = 3
"""How often a pod that died, and was not preempted, starts again; it goes on from the stored rows."""
GRACE_S: Final = 120
"""Seconds between SIGTERM and SIGKILL."""
ANSWERED: Final = [2, 3]
"""Exit codes that another try would repeat: an invalid request, and points that failed."""


def job(wanted: Wanted, place: Place) -> list[dict[str, Any]]:
    """An indexed Job, one pod for each host; before it the headless Service by which pods of one slice find each other.

    Raises:
        InvalidRequest: several slices of several hosts are asked for, or the chip or the store is not one of a cluster.
    """
    if wanted.hosts > 1 and wanted.teams > 1:
        remedy = "use shardbench jobs jobset, or workers=1"
        raise InvalidRequest("workers", wanted.teams, f"are teams of {wanted.hosts} pods, and a Job has one", remedy)
    pods = wanted.teams * wanted.hosts
    spec: dict[str, Any] = {
        "completionMode": "Indexed",
        "completions": pods,
        "parallelism": pods,
        "template": _pod(wanted, place),
    }
    if wanted.hosts == 1:
        spec["backoffLimitPerIndex"] = RETRIES
        spec["podFailurePolicy"] = {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": ANSWERED}},
            ]
        }
    else:  # the pods of a slice live and die together
        spec["backoffLimit"] = 0
        spec["template"]["spec"]["subdomain"] = place.name
    manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": place.name}, "spec": spec}
    if wanted.hosts == 1:
        return [manifest]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": place.name},
        "spec": {"clusterIP": "None", "selector": {"job-name": place.name}},
    }
    return [service, manifest]


def jobset(wanted: Wanted, place: Place) -> list[dict[str, Any]]:
    """A JobSet: one Job a team, each on a node pool of its own, begun anew where one of its pods dies.

    Raises:
        InvalidRequest: the chip or the store is not one of a cluster.
    """
    template: dict[str, Any] = {
        "spec": {
            "completionMode": "Indexed",
            "completions": wanted.hosts,
            "parallelism": wanted.hosts,
            "backoffLimit": 0,
            "template": _pod(wanted, place),
        }
    }
    metadata: dict[str, Any] = {"name": place.name}
    if wanted.hosts > 1:
        metadata["annotations"] = dict(ONE_SLICE_A_POOL)
    spec = {
        "failurePolicy": {"maxRestarts": RETRIES},
        "replicatedJobs": [{"name": "team", "replicas": wanted.teams, "template": template}],
    }
    return [{"apiVersion": JOBSET, "kind": "JobSet", "metadata": metadata, "spec": spec}]


def _pod(wanted: Wanted, place: Place) -> dict[str, Any]:
    place.check_store(wanted.results_dir)
    container: dict[str, Any] = {
        "name": "shardbench",
        "image": place.needed_image,
        "command": wanted.command,
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "containers": [container],
    }
    if wanted.torchrun:
        raise InvalidRequest("engine", "torch", "spans hosts by torchrun", "use shardbench jobs slurm, or skypilot")
    if wanted.chip is not None:
        _, name = wanted.cloud("gke")
        if wanted.chip.kind == "tpu":
            spec["nodeSelector"] = {TPU: name, TOPOLOGY: wanted.topology}
            count = {"google.com/tpu": wanted.host_chips}
        else:
            spec["nodeSelector"] = {GPU: name}
            count = {"nvidia.com/gpu": wanted.host_chips}
        container["resources"] = {"requests": dict(count), "limits": dict(count)}
    if place.claim is not None:
        container["volumeMounts"] = [{"name": "store", "mountPath": place.mount}]
        spec["volumes"] = [{"name": "store", "persistentVolumeClaim": {"claimName": place.claim}}]
    return {"spec": spec}
