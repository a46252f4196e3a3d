"""The NVIDIA GPUs of this machine, by the driver's names for them."""

import subprocess
from collections.abc import Sequence
from typing import Final

from engines.core.chip import Chip
from engines.core.errors import Unsupported

QUERY_TIMEOUT_S: Final = 20


def check_present(chip: Chip, device_names: Sequence[str]) -> None:
    """Check that this machine's GPUs, given by their names, are all ``chip``.

    Raises:
        Unsupported: there are none, or there are others.
    """
    if not device_names:
        raise Unsupported(f"hw={chip.name}: is not on this machine, which has no GPU")
    others = sorted({name for name in device_names if name.strip() not in chip.device_names})
    if others:
        raise Unsupported(f"hw={chip.name}: is not on this machine, which has {len(device_names)} × {others[0]}")


def device_names(nvidia_smi: str = "nvidia-smi") -> list[str]:
    """Names of this machine's GPUs as ``nvidia-smi`` lists them; empty if it is missing, fails or hangs."""
    words = [nvidia_smi, "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=QUERY_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]
