"""What NVIDIA's driver calls the chips that ``conf/hw`` describes, and which of them are here."""

import subprocess
from typing import Final

from engines.core.errors import Unsupported

GPU_NAMES: Final[dict[str, str]] = {
    "NVIDIA A100-SXM4-80GB": "a100-80gb",
    "NVIDIA H100 80GB HBM3": "h100-80gb",
    "NVIDIA H200": "h200",
    "NVIDIA B200": "b200",
}
"""Name of a whole device → hw. PCIe boards and slices of a device (MIG) have other names, and other figures."""
QUERY_TIMEOUT_S: Final = 20


def hw_of(device_name: str) -> str | None:
    """The hw of a device by the driver's name for it; None where no datasheet describes it."""
    return GPU_NAMES.get(device_name.strip())


def check_present(hw: str, device_names: list[str]) -> None:
    """Check that this machine's GPUs, of which there may be none, are ``hw``.

    Raises:
        Unsupported: there are none, or there are others.
    """
    if not device_names:
        raise Unsupported(f"hw={hw}: is not on this machine, which has no GPU")
    others = sorted({name for name in device_names if hw_of(name) != hw})
    if others:
        raise Unsupported(f"hw={hw}: is not on this machine, which has {len(device_names)} × {others[0]}")


def hw_here(nvidia_smi: str = "nvidia-smi") -> str:
    """The hw of this machine's GPUs.

    Raises:
        Unsupported: there are none, they differ, or no datasheet describes them.
    """
    names = sorted(set(device_names(nvidia_smi)))
    if not names:
        raise Unsupported("hw=here: this machine has no GPU that nvidia-smi lists; name a chip of conf/hw")
    found = hw_of(names[0])
    if found is None or len(names) > 1:
        raise Unsupported(
            f"hw=here: {', '.join(names)} is not one of {', '.join(GPU_NAMES)}; for another GPU "
            "write a file in conf/hw, and its name in engines/external/nvidia.py"
        )
    return found


def device_names(nvidia_smi: str = "nvidia-smi") -> list[str]:
    """Names of this machine's GPUs as ``nvidia-smi`` lists them; empty where it is absent, fails or hangs."""
    words = [nvidia_smi, "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=QUERY_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]
