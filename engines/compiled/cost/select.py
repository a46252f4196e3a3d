"""Which cost model times the programs of a slice."""

from engines.compiled.cost.base import CostModel
from engines.compiled.cost.gpu import gpu_cost_model
from engines.compiled.cost.tpu import tpu_cost_model
from engines.core.slice import Slice


def cost_model_of(slice_: Slice, places: tuple[int, ...] = ()) -> CostModel:
    """The cost model of one device of a slice. ``places`` holds the number of the device of each partition of a program
    (:class:`engines.compiled.cost.torus.Torus`); empty where partitions are numbered as devices are.

    Raises:
        Unsupported: the chip's file lacks a figure.
    """
    return (
        gpu_cost_model(slice_.chip, slice_.num_chips) if slice_.chip.kind == "gpu" else tpu_cost_model(slice_, places)
    )
