"""What a phase may run: every way to split a layer on a torus, and on GPU nodes."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from engines.core.layout import EXPERT_AXES, FFN_LAYOUTS, LAYOUTS


class Strategy(NamedTuple):
    """What a phase may run: on a torus a layout, attention over ``batch``, ``heads`` or ``sequence`` and expert axes.

    Attention over heads replicates a cache of latent vectors. On GPUs ``data`` groups of ranks attend to their own
    sequences, and experts are spread over all ranks that divide them, where ``spread``.
    """

    layout: str
    attention: str
    experts: str = ""
    data: int = 1
    spread: bool = False

    @property
    def stored(self) -> tuple[Any, ...]:
        """How weights lie: phases of one point run strategies in which it is equal."""
        return (*LAYOUTS[self.layout].stored, *self.places)

    @property
    def places(self) -> tuple[tuple[str, Any], ...]:
        """Where experts and groups of ranks lie: fields of a strategy that no phase changes."""
        return (("experts", self.experts), ("data", self.data), ("spread", self.spread))


_AXES: Final = tuple("" if axes == "none" else axes for axes in EXPERT_AXES if axes != "auto")
_DATA: Final = tuple(2**power for power in range(10))
ON_TORUS: Final = tuple(
    Strategy(layout, attention, axes)
    for axes in _AXES
    for layout in FFN_LAYOUTS
    if layout != "auto"
    for attention in ("batch", "heads", "sequence")
)
ON_NODES: Final = tuple(
    Strategy("ws_1d", "heads", data=data, spread=spread) for data in _DATA for spread in (False, True)
)
STRATEGIES: Final = (*ON_TORUS, *ON_NODES[1:])
"""All of them, in the order in which ties are broken."""
ONE_D: Final = STRATEGIES.index(Strategy("ws_1d", "heads"))
"""What GPU nodes run of a dense model, unless they are told to split attention's sequences."""


def _interchangeable(strategies: Sequence[Strategy]) -> tuple[list[int], ...]:
    kinds = list(dict.fromkeys(each.stored for each in strategies))
    return tuple([STRATEGIES.index(each) for each in strategies if each.stored == kind] for kind in reversed(kinds))


INTERCHANGEABLE: Final = _interchangeable(ON_TORUS)
"""Indices of the torus's strategies that run on the same stored weights, those of the last layout first."""
GPU_STRATEGIES: Final = (ONE_D, *(STRATEGIES.index(each) for each in ON_NODES[1:]))
