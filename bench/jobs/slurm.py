"""SLURM: a batch script for ``sbatch``."""

from typing import Final

from bench.jobs.place import Place
from bench.jobs.wanted import Wanted
from engines.core.errors import InvalidRequest

GRACE_S: Final = 120
"""Seconds before the end of the time at which SLURM sends SIGTERM, which drops the present point and its lease."""
PORT: Final = 29500


def script(wanted: Wanted, place: Place, *, minutes: int, partition: str | None) -> str:
    """The script: an array of workers, one team of processes on several nodes, or torchrun on several nodes.

    A job that is preempted is queued again, and goes on from the stored rows.

    Raises:
        InvalidRequest: several teams of several nodes are asked for.
    """
    if wanted.hosts > 1 and wanted.teams > 1:
        problem = f"are teams of {wanted.hosts} nodes, and a job of SLURM has one"
        raise InvalidRequest(
            "workers", wanted.teams, problem, "submit the file of workers=1 as often as there are teams"
        )
    options = [
        f"job-name={place.name}",
        f"time={minutes}",
        *([f"partition={partition}"] if partition is not None else []),
        f"nodes={wanted.hosts}",
        "ntasks-per-node=1",
        *([f"gpus-per-node={wanted.host_chips}"] if wanted.chip is not None and wanted.chip.kind == "gpu" else []),
        *([f"array=0-{wanted.teams - 1}"] if wanted.teams > 1 else []),
        "requeue",
        "open-mode=append",
        f"signal=TERM@{GRACE_S}",
    ]
    lines = ["#!/bin/bash", *(f"#SBATCH --{option}" for option in options), ""]
    if not wanted.torchrun:
        return "\n".join([*lines, f"srun {wanted.line}", ""])
    return "\n".join(
        [
            *lines,
            "# Each node starts a rank on each of its GPUs; rank 0 stores the rows.",
            'first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            f"srun torchrun --nnodes={wanted.hosts} --nproc-per-node={wanted.host_chips} --rdzv-id=$SLURM_JOB_ID \\",
            f"  --rdzv-backend=c10d --rdzv-endpoint=$first:{PORT} --no-python \\",
            f"  {wanted.line}",
            "",
        ]
    )
