"""Which layers' arrays lie together, and in which order a pass runs them."""

from dataclasses import dataclass

from engines.core.layer_kind import LayerKind
from engines.core.model import Model


@dataclass(frozen=True, slots=True)
class Stack:
    """The layers ``numbers``, all of one kind, whose arrays are stacked along a first axis."""

    kind: LayerKind
    numbers: range


Turn = tuple[Stack, ...]
"""The stacks of a loop over layers: each turn runs the next layer of each of them, in order."""


def loops_of(model: Model, unrolled: bool) -> tuple[Turn, ...]:
    """The loops that a pass runs, one for each segment of the model; ``unrolled``: one stack of one for each layer."""
    if unrolled:
        return tuple((Stack(kind, range(each, each + 1)),) for each, kind in enumerate(model.layer_kinds))
    found, first = [], 0
    for segment in model.segments:
        end, period = first + segment.num_layers, len(segment.kinds)
        found.append(tuple(Stack(kind, range(first + at, end, period)) for at, kind in enumerate(segment.kinds)))
        first = end
    return tuple(found)
