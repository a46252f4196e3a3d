"""The environment of a process in which XLA compiles for devices that are not there."""

from collections.abc import Mapping
from typing import Final

from engines.core.versions import XLA_FLAGS, xla_flags

QUIET: Final[Mapping[str, str]] = {
    "TPU_SKIP_MDS_QUERY": "1",  # no cloud is asked which slice this machine is part of
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # its lock is for the chips, and there are none
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
"""Variables that the TPU compiler reads when it is loaded."""


def compiling_environment() -> dict[str, str]:
    """The variables of a child that compiles: no accelerator is looked for, no cloud asked, logs are quiet.

    Raises:
        InvalidRequest: ``XLA_FLAGS`` holds no flags and names no file of flags.
    """
    return {XLA_FLAGS: xla_flags(), "JAX_PLATFORMS": "cpu", **QUIET}
