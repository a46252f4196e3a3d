#!/usr/bin/env python3
"""A stand-in for SLURM on one machine: named sbatch, srun, sacct, squeue, scancel or scontrol, it does what that does.

``sbatch`` runs every task of the array at once in a process group of its own and returns; ``$SLURM_STAND_IN`` is the
folder with what it ran: ``JOB.sh``, and ``JOB_TASK.pid``.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

PLACE = Path(os.environ["SLURM_STAND_IN"])


def sbatch(words):
    script = Path(words[-1])
    text = script.read_text(encoding="utf-8")
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", text, flags=re.M))
    job = str(1 + len(list(PLACE.glob("*.sh"))))
    (PLACE / f"{job}.sh").write_text(text, encoding="utf-8")
    first, _, last = options.get("array", "0").partition("%")[0].partition("-")
    nodes = options.get("nodes", "1")
    for task in range(int(first), int(last or first) + 1):
        named = {
            "SLURM_JOB_ID": f"{job}{task:03}",
            "SLURM_JOB_NUM_NODES": nodes,
            "SLURM_NNODES": nodes,
            "SLURM_JOB_NODELIST": "localhost",
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_NTASKS": str(int(nodes) * int(options.get("ntasks-per-node", "1"))),
            "SLURMD_NODENAME": "localhost",
        }
        if "array" in options:
            named |= {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": str(task)}
        with (PLACE / f"{job}_{task}.out").open("wb") as out:
            run = subprocess.Popen(
                ["bash", str(script)], env={**os.environ, **named}, stdout=out, stderr=out, start_new_session=True
            )
        (PLACE / f"{job}_{task}.pid").write_text(str(run.pid))
    print(f"Submitted batch job {job}")


def srun(words):
    """One process a task; the first of its words that is no option is the command."""
    options, command = [], list(words)
    while command and command[0].startswith("-"):
        options.append(command.pop(0))
        if "=" not in options[-1] and options[-1] in ("--output", "--error", "--nodes", "--ntasks", "-n", "-N"):
            options.append(command.pop(0))
    count = int(os.environ.get("SLURM_NTASKS", "1"))
    running = []
    for rank in range(count):
        named = {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank), "SLURM_LOCALID": "0"}
        running.append(subprocess.Popen(command, env={**os.environ, **named}))
    sys.exit(max(each.wait() for each in running))


def sacct(_words):
    print("JobID|State|NodeList")
    for path in PLACE.glob("*.pid"):
        alive = Path(f"/proc/{path.read_text()}").exists()
        print(f"{path.stem}|{'RUNNING' if alive else 'COMPLETED'}|localhost")


def scancel(words):
    for path in PLACE.glob("*.pid"):
        if path.stem in words or path.stem.partition("_")[0] in words:
            os.killpg(int(path.read_text()), signal.SIGTERM)


def scontrol(words):
    print("\n".join(["localhost"] * int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))))


if __name__ == "__main__":
    commands = {"sbatch": sbatch, "srun": srun, "sacct": sacct, "squeue": sacct, "scancel": scancel}
    {**commands, "scontrol": scontrol}[Path(sys.argv[0]).name](sys.argv[1:])
