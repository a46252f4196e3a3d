"""The conditions of a measurement: what changes a measured answer beside the point, the program and the code.

A measured row holds them, and stands for its point only while they are those of now. Other kinds of evidence have none:
what decides a predicted, compiled or published answer is in its ``program_id``.
"""

import os
import re
from collections.abc import Mapping
from typing import Any, Final

from bench.measure.timing import TimingConfig
from bench.run.environment import cpu_affinity, read_environment
from engines.core.digest import plain
from engines.core.engine import Engine, Runner
from engines.core.row import Row
from engines.core.versions import UNCHANGING, XLA_FLAGS, without_device_count

VARIABLES: Final = re.compile(
    r"(JAX|XLA|LIBTPU|TPU|PJRT|OMP|KMP|GOMP|MKL|OPENBLAS|BLIS|ONEDNN|DNNL|GLOO|UCX|MALLOC"
    r"|TORCH|TORCHINDUCTOR|PYTORCH|ATEN|TRITON|CUDA|CUBLAS|CUBLASLT|CUDNN|NCCL|NVIDIA|NVTE|ROCR|HIP|HSA|MIOPEN"
    r"|VLLM|TRTLLM|TLLM)_\w+"
    r"|TF_(XLA|ENABLE|DISABLE|USE|FORCE|NUM|GPU|CUDNN|DETERMINISTIC)\w*|GLIBC_TUNABLES|LD_PRELOAD|LD_LIBRARY_PATH"
)
"""Variables of the environment that compilers, drivers, runtimes, thread pools and allocators read."""
HARNESS_SETTINGS: Final = frozenset({"_target_", "name", "isolated", "timeout_s", "memory_limit_bytes"})
"""Keys of every engine's file that change no answer. ``cores`` does."""


def conditions_of(
    engine: Engine, config: Mapping[str, Any], timing: TimingConfig, repeat: int = 1, order: str = "sequential"
) -> dict[str, Any] | None:
    """The conditions that a row measured now records, as plain values; None for other kinds of evidence.

    ``timing`` are the rules of an engine that the harness times, ``settings`` those of the engine that neither
    ``options`` nor ``program_id`` holds, such as its tolerances; then :func:`variables` and :func:`machine`. Where
    several processes measure a point, ``processes`` says how many, and in which order.
    """
    if engine.source != "measured":
        return None
    left_out = {*HARNESS_SETTINGS, *engine.ignored_settings, *engine.options}
    found = plain(
        {
            "timing": timing.stated() if isinstance(engine, Runner) else {},
            "settings": {key: value for key, value in config.items() if key not in left_out},
            "variables": variables(os.environ),
            "machine": machine(),
            **({"processes": {"repeat": repeat, "order": order}} if repeat > 1 else {}),
        }
    )
    assert isinstance(found, dict)
    return found


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that may change a measured time, by name, without ``XLA_FLAGS``, which a row has a key for."""
    names = (name for name in sorted(environment) if VARIABLES.fullmatch(name) and name != XLA_FLAGS)
    return {name: environment[name] for name in names if not UNCHANGING.search(name)}


def machine() -> dict[str, Any]:
    """Processor, number of cores, share of them that the control group may use, GPUs and driver of this machine."""
    here = read_environment()
    return {
        "processor": here.processor,
        "cores": os.cpu_count(),
        "cpu_quota": here.cpu_quota,
        "gpus": list(here.gpus),
        "driver": here.versions.get("driver"),
    }


def hold(
    row: Row, conditions: Mapping[str, Any] | None, environment: Mapping[str, str], *, other_hosts: bool = False
) -> bool:
    """Whether a row's conditions are those of now; ``environment`` is that of the process that would answer.

    ``other_hosts``: whether another host with the same :func:`machine` measures the same.

    A measured row that does not state its conditions was stored by an earlier version: nobody knows, so they aren't.
    """
    if row.source != "measured":
        return True
    if not other_hosts and row.host != read_environment().host:
        return False
    if row.xla_flags is None or row.cpu_affinity is None:
        return False
    if without_device_count(row.xla_flags) != without_device_count(environment.get(XLA_FLAGS, "")):
        return False
    return row.conditions == conditions and _same_cores(row.cpu_affinity, conditions)


def _same_cores(cores: list[int], conditions: Mapping[str, Any] | None) -> bool:
    """Whether a process started now may get the same cores: all that this one has, or ``engine.cores`` of them."""
    here = cpu_affinity()
    limit = ((conditions or {}).get("settings") or {}).get("cores")
    return cores == here or (limit is not None and len(cores) == limit and set(cores) <= set(here))
