"""What may differ from layer to layer, and the order in which kinds of layers repeat."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True, slots=True)
class LayerKind:
    """``window`` is the number of keys that a query sees at most, itself included; None is all."""

    window: int | None = None
    has_experts: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """``kinds``, one layer each, ``repeats`` times: what one loop over layers runs."""

    kinds: tuple[LayerKind, ...]
    repeats: int

    @property
    def num_layers(self) -> int:
        """Layers of the segment."""
        return len(self.kinds) * self.repeats


def segments_of(kinds: Sequence[LayerKind], period: int) -> tuple[Segment, ...]:
    """The layers as segments: stretches with and without experts apart, whole periods in a loop, and then the rest.

    Six layers of period 2 after two dense ones are two segments; 62 of period 6 are ten turns and two layers more.
    """
    found: list[Segment] = []
    for _, stretch in groupby(kinds, key=lambda kind: kind.has_experts):
        layers = tuple(stretch)
        if len(set(layers)) == 1:
            found.append(Segment(layers[:1], len(layers)))
            continue
        pattern, turns = layers[:period], len(layers) // period
        if turns:
            found.append(Segment(pattern, turns))
        for kind, rest in groupby(layers[turns * period :]):
            found.append(Segment((kind,), len(tuple(rest))))
    return tuple(found)


def seen_pairs(first: int, last: int, window: int | None, window_kind: str) -> int:
    """Pairs of a query and a key that it sees, for the queries at positions ``first`` … ``last`` − 1 of one sequence.

    The query at position p sees p + 1 keys; in a sliding window W at most W, in chunks of W p mod W + 1.
    """

    def before(position: int) -> int:
        if window is None or (window_kind == "sliding" and position <= window):
            return position * (position + 1) // 2
        if window_kind == "sliding":
            return window * (window + 1) // 2 + (position - window) * window
        chunks, rest = divmod(position, window)
        return chunks * window * (window + 1) // 2 + rest * (rest + 1) // 2

    return before(last) - before(first)
