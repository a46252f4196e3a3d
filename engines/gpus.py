"""What NVIDIA's driver calls the chips that ``conf/hw`` describes."""

from typing import Final

GPU_NAMES: Final[dict[str, str]] = {
    "NVIDIA A100-SXM4-80GB": "a100-80gb",
    "NVIDIA H100 80GB HBM3": "h100-80gb",
    "NVIDIA H200": "h200",
    "NVIDIA B200": "b200",
}
"""Name of a whole device → hw. PCIe boards and slices of a device (MIG) have other names, and other figures."""


def hw_of(device_name: str) -> str | None:
    """The hw of a device by the driver's name for it; None where no datasheet describes it."""
    return GPU_NAMES.get(device_name.strip())
