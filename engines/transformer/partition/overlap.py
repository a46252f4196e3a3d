"""How a layer's communication overlaps its matmuls: chosen once for a plan."""

from enum import Enum

from engines.core.layout import variant_of
from engines.core.model import Model
from engines.transformer.partition.axes import MeshAxes


class Overlap(Enum):
    """How collectives and matmuls of a layer are ordered."""

    PLAIN = "a collective, then the matmul that reads it; the compiler decides what overlaps"
    RING_OF_ACTIVATIONS = "stationary weights: shards of activations circulate between partial matmuls"
    RING_OF_WEIGHTS = "gathered weights: shards of weights circulate between partial matmuls"
    OVERLAPPED_BLOCK = (
        "a parallel block: one half's collectives run under the other half's matmuls, which are not split"
    )


def overlap_of(model: Model, axes: MeshAxes, collectives: str, *, manual: bool, decodes: bool) -> Overlap:
    """The strategy of a plan with these ``collectives``; ``manual``: the program runs its own collectives.

    Without decode steps a parallel block uses a ring: its matmuls are long enough to hide their own collectives. So it
    does where positions are split, which attention exchanges in its own order.

    Raises:
        InvalidRequest: there is no such variant.
    """
    variant = variant_of(collectives)
    if not variant.looped:
        return Overlap.PLAIN
    if axes.batch:
        return Overlap.RING_OF_WEIGHTS
    sends = manual and axes.chips > 1 and not axes.positions
    if variant.overlaps_block and sends and decodes and model.shares_norm:
        return Overlap.OVERLAPPED_BLOCK
    return Overlap.RING_OF_ACTIVATIONS
