"""Workloads for the planner, as the command line reads them."""

from typing import Any

from bench.cli.args import parse
from bench.cli.commands.plan import KEYS, workload_from
from bench.cli.values import listed
from bench.planner.workload import Workload


def workload_of(**keys: Any) -> Workload:
    """``workload_of(model="palm-8b", batch_size=[1, 2])`` is that of ``plan model=palm-8b batch_size=[1,2]``."""
    texts = {key: listed(value) if isinstance(value, list) else str(value) for key, value in keys.items()}
    _, settings = parse("plan", [f"{key}={text}" for key, text in texts.items()], KEYS, {})
    return workload_from({**settings, "hw": settings["hw"][0]})
