"""At which rates weights and caches come to a chip from outside it, and how many layers of them it holds at once."""

import math
from typing import Any, Final

import numpy as np

from engines.core.point import Point

BUFFERS: Final = 2
"""Layers on the chip at once, as :data:`engines.offload.pipeline.BUFFERS`: one computes while the next arrives."""

HOST_LINK_SHARE: Final = 0.85
"""Share of a host link's datasheet rate that large copies reach; a prior, no row has set it.

A PCI Express packet of 256 bytes carries 20 to 28 bytes of header, check and framing (PCI Express Base Specification,
transaction and data link layers), which leaves 0.90 to 0.93; the copy engine's gaps between packets take the rest.
"""


def offload_record(point: Point) -> dict[str, Any]:
    """The arrays of a grid that say what a point offloads, and at which rates it comes; infinite where nothing does.

    Raises:
        Unsupported: the chip's file does not state its host link, or a drive that the point reads.
    """
    chip, host, nvme = point.chip, math.inf, math.inf
    if streams(point):
        host = HOST_LINK_SHARE * chip.require("host_link_bytes_per_s", chip.host_link_bytes_per_s)
    if point.offload == "nvme":
        nvme = chip.require("nvme_bytes_per_s", chip.nvme_bytes_per_s)
    return {
        "offloads": point.offload != "none",
        "offloads_kv": point.offload_kv != "none",
        "host_bytes_per_s": host,
        "nvme_bytes_per_s": nvme,
    }


def streams(point: Point) -> bool:
    """Whether anything comes to the chip from the host while a pass runs."""
    return point.offload != "none" or point.offload_kv != "none"


def held_layers(layers: Any, offloaded: Any) -> Any:
    """Layers whose weights, or cache, are on the chip at once, arrays [points]."""
    return np.where(offloaded, np.minimum(layers, float(BUFFERS)), layers)
