"""What decides a compiled program beside its source: versions of libraries, and variables of the environment."""

import os
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from engines.core.errors import InvalidRequest

JAX_LIBRARIES: Final = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda12-pjrt")
"""Libraries whose versions determine what JAX compiles."""
XLA_FLAGS: Final = "XLA_FLAGS"
COMPILER_FLAGS: Final = ("LIBTPU_INIT_ARGS", XLA_FLAGS)
"""Variables of the environment that XLA's compilers read."""
JAX_VARIABLE: Final = "JAX_"
"""Prefix of the variables that JAX reads: some change what it traces, as ``JAX_DEFAULT_MATMUL_PRECISION``."""
UNCHANGING: Final = re.compile(
    r"LOG|VMODULE|TRACEBACK|CACHE_(DIR|PATH|ROOT)|ADDRESS|COORDINATOR|PORT$|RANK|WORKER|PROCESS|TASK"
    r"|KEY|TOKEN|SECRET|PASSW|CREDENTIAL"
    r"|^JAX_PLATFORMS?(_NAME)?$|^JAX_NUM_CPU_DEVICES$|^TPU_NAME$|^TPU_SKIP_MDS_QUERY$|^NCCL_DEBUG"
)
"""Names of variables that change no answer (logs, caches, who talks to whom, which platform: the point's chip says) or
that are nobody else's business."""
DEVICE_COUNT_FLAG: Final = "--xla_force_host_platform_device_count"
"""How many virtual devices a process has. It changes no program: the mesh says which of them it uses."""
_JAX_OF_KIND: Final = {"tpu": JAX_LIBRARIES[:3], "gpu": (*JAX_LIBRARIES[:2], *JAX_LIBRARIES[3:])}


def versions_of(names: Sequence[str]) -> dict[str, str]:
    """Name → version of the installed ones among ``names``."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def jax_libraries_of(kind: str) -> tuple[str, ...]:
    """Those of :data:`JAX_LIBRARIES` that compile for a kind of chip (tpu, gpu or cpu)."""
    return _JAX_OF_KIND.get(kind, JAX_LIBRARIES[:2])


def xla_flags() -> str:
    """The flags in ``XLA_FLAGS``, or in the file that it names: XLA takes a text that starts with no dash for a file.

    Raises:
        InvalidRequest: there is no such file.
    """
    text = os.environ.get(XLA_FLAGS, "")
    if not text.strip() or text.lstrip().startswith("-"):
        return text
    try:
        return Path(text).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InvalidRequest(
            XLA_FLAGS,
            text,
            f"is no flag, and cannot be read as a file of flags ({reason})",
            "unset it, name a file, or start every flag with --",
        ) from None


def compiler_flags() -> dict[str, str]:
    """What :data:`COMPILER_FLAGS` are set to here, and the variables of JAX that are set and may change a program.

    Raises:
        InvalidRequest: see :func:`xla_flags`.
    """
    found = {name: os.environ.get(name, "") for name in COMPILER_FLAGS} | {XLA_FLAGS: xla_flags()}
    flags = {name: without_device_count(text) for name, text in found.items()}
    set_here = {name: value for name, value in os.environ.items() if name.startswith(JAX_VARIABLE)}
    return flags | {name: value for name, value in sorted(set_here.items()) if not UNCHANGING.search(name)}


def without_device_count(flags: str) -> str:
    """Flags of XLA without the number of virtual devices, one space between them."""
    return " ".join(re.sub(rf"{DEVICE_COUNT_FLAG}=\d+", "", flags).split())
