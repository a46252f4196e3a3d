"""At which rates weights and caches come to a chip from outside it, and how many layers of them it holds at once."""

import math
from typing import Any

import numpy as np

from engines.core.errors import Unsupported
from engines.core.point import Point
from engines.offload.host_link import HOST_LINK_SHARE
from engines.offload.pipeline import BUFFERS


def offload_record(point: Point) -> dict[str, Any]:
    """The arrays of a grid that say what a point offloads, and at which rates it comes; infinite where nothing does.

    Raises:
        Unsupported: the chip's file does not state its host link, or a drive that the point reads.
    """
    chip, host, nvme = point.chip, math.inf, math.inf
    if point.offloads:
        host = HOST_LINK_SHARE * chip.require("host_link_bytes_per_s", chip.host_link_bytes_per_s)
    if point.offload == "nvme":
        nvme = chip.require("nvme_bytes_per_s", chip.nvme_bytes_per_s)
    return {
        "offloads": point.offload != "none",
        "offloads_kv": point.offload_kv != "none",
        "first_layers": point.staying_layers,
        "host_bytes_per_s": host,
        "nvme_bytes_per_s": nvme,
    }


def held_layers(layers: Any, first: Any, offloaded: Any) -> Any:
    """Layers whose weights, or cache, are on the chip at once, of which the ``first`` stay; arrays [points]."""
    return np.where(offloaded, first + np.minimum(layers - first, float(BUFFERS)), layers)


def host_bytes(point: Point, held_cache_bytes: float) -> float:
    """Bytes of host memory over all chips: the layers' weights, and the cache of which a chip holds a part.

    Weights are the parameters without the tables; ``held_cache_bytes`` are those of the layers on one chip. Neither
    counts the first layers where they stay on the chip.
    """
    model, found, first = point.model, 0.0, point.staying_layers
    away = model.num_layers - first
    if point.offload == "host":
        tables = (1 if model.tied_embedding else 2) * model.vocab_size * model.d_model
        found += (model.params - tables) * point.weight_bytes * away / model.num_layers
    if point.offload_kv == "host":
        found += point.num_chips * held_cache_bytes * away / float(held_layers(model.num_layers, first, True))
    return found


def check_streamed(point: Point) -> None:
    """Check that what a point offloads is modelled.

    Raises:
        Unsupported: with pipeline stages, exits, or shardings of every operator.
    """
    if not point.offloads:
        return
    asked = f"offload={point.offload} offload_kv={point.offload_kv}"
    if point.pipeline_degree > 1:
        raise Unsupported(
            f"pipeline_parallel={point.pipeline_degree}: {asked} is modelled with all layers in one stage; use "
            "pipeline_parallel=1"
        )
    for key, plain in (("exit_threshold", None), ("planner", "auto"), ("shardings", None)):
        if getattr(point, key) != plain:
            raise Unsupported(f"{key}={getattr(point, key)}: is not modelled with {asked}; leave it out")
