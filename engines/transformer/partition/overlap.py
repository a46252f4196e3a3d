"""The one choice of how a layer's communication overlaps its matmuls; programs are made by it."""

from enum import Enum

from engines.core.layout import variant_of
from engines.core.model import Model
from engines.transformer.partition.axes import MeshAxes


class Overlap(Enum):
    """How collectives and matmuls of a layer are ordered."""

    PLAIN = "a collective, then the matmul that reads it: what overlaps is the compiler's choice"
    RING_OF_ACTIVATIONS = "stationary weights: shards of activations circulate between partial matmuls"
    RING_OF_WEIGHTS = "gathered weights: shards of weights circulate between partial matmuls"
    OVERLAPPED_BLOCK = "a parallel block: one half's collectives run under the other half's matmuls, which stay whole"


def overlap_of(model: Model, axes: MeshAxes, collectives: str, *, by_hand: bool, decodes: bool) -> Overlap:
    """The strategy of a plan with these ``collectives``; ``by_hand``: the program moves values itself.

    A block without decode steps loops: its matmuls are long enough for their own collectives.

    Raises:
        InvalidRequest: there is no such variant.
    """
    variant = variant_of(collectives)
    if not variant.looped:
        return Overlap.PLAIN
    if axes.batch:
        return Overlap.RING_OF_WEIGHTS
    sends = by_hand and axes.chips > 1
    if variant.overlaps_block and sends and decodes and model.shares_norm:
        return Overlap.OVERLAPPED_BLOCK
    return Overlap.RING_OF_ACTIVATIONS
