"""How a rank's sequences lie in the tensors of a pass: of equal length, padded to the longest, or packed in one row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from engines.core.layer_kind import LayerKind
from engines.core.point import Point
from engines.torch.attention import Cache, PackedMask, RowMask
from engines.torch.transformer import Masks, Transformer


@dataclass(frozen=True, slots=True)
class Pass:
    """What one micro-batch reads. ``tokens``: [batch, time], or [1, tokens] where it is packed.

    ``positions`` are those of the tokens, [time] or as tokens. ``last``: [batch], the places of the tokens whose logits
    are wanted among all of ``tokens``; None is each sequence's last. ``longest`` is the time of the group of sequences
    that has most, where they differ.
    """

    tokens: Tensor
    positions: Tensor
    masks: Masks
    last: Tensor | None = None
    longest: int | None = None


class Equal:
    """Sequences of equal length. ``prompt``: [batch, input_len]; ``length`` is that of the cache."""

    def __init__(self, transformer: Transformer, prompt: Tensor, input_len: int, length: int) -> None:
        self.transformer, self.tokens, self.input_len, self.length = transformer, prompt, input_len, length
        self.device = prompt.device

    def cache_size(self, rows: slice) -> tuple[int, int]:
        """Rows of these sequences' cache and positions of a row."""
        return rows.stop - rows.start, self.length

    @property
    def start(self) -> Tensor:
        """Where the first step's tokens stand, in the shape of the rank's position."""
        return torch.full((1,), self.input_len, dtype=torch.long, device=self.device)

    def prompt(self) -> Callable[[slice], Pass]:
        """Micro-batch → what its prefill reads."""
        positions = torch.arange(self.input_len, device=self.device)
        masks = self.transformer.masks(positions, self.input_len, True)
        return lambda rows: Pass(self.tokens[rows], positions, masks)

    def step(self, position: Tensor, _number: int, limit: int, exact: bool) -> Callable[[slice, Tensor], Pass]:
        """Micro-batch and tokens [batch] → what step ``number`` reads of a cache of ``limit`` positions."""
        masks = self.transformer.masks(position, limit, exact)
        return lambda rows, token: Pass(token[rows, None], position, masks)

    def cache(self, layers: Sequence[Cache], rows: slice) -> list[Cache]:
        """The micro-batch's part of the cache."""
        return [tuple(each[rows] for each in layer) for layer in layers]

    def filled(self, kind: LayerKind, rows: slice, number: int) -> list[slice]:
        """Places in a row of the micro-batch's cache that hold what step ``number`` reads, beside its own tokens."""
        window, cached = self.transformer.windows[kind], self.input_len + number
        return [slice(0, cached if window is None else window.filled(cached))]

    def written(self, kind: LayerKind, rows: slice, number: int | None) -> tuple[slice | Tensor, ...]:
        """Where the prompt (None) or a step puts its own tokens, as an index of [place in a row, row]."""
        window = self.transformer.windows[kind]
        room = self.length if window is None else window.room
        if number is None:
            return (slice(0, min(self.input_len, room)),)
        at = (self.input_len + number) % room
        return (slice(at, at + 1),)


class Padded(Equal):
    """Sequences of ``lengths``, each padded at its end to ``input_len``; a step reads the longest one's positions."""

    def __init__(
        self, transformer: Transformer, prompt: Tensor, input_len: int, length: int, lengths: Sequence[int]
    ) -> None:
        super().__init__(transformer, prompt, input_len, length)
        self.lengths = list(lengths)
        # The last positions of a padded prompt are not a sequence's own: the whole cache is kept, windows are masks.
        self.windows = {kind: window and replace(window, room=length) for kind, window in transformer.windows.items()}
        transformer.windows = self.windows

    @property
    def start(self) -> Tensor:
        """See :class:`Equal`: [batch]."""
        return self._tensor(self.lengths)

    def prompt(self) -> Callable[[slice], Pass]:
        """See :class:`Equal`."""
        positions = torch.arange(self.input_len, device=self.device)
        masks = self.transformer.masks(positions, self.input_len, True)

        def of(rows: slice) -> Pass:
            ends = [number * self.input_len + each - 1 for number, each in enumerate(self.lengths[rows])]
            return Pass(self.tokens[rows], positions, masks, self._tensor(ends))

        return of

    def step(self, position: Tensor, _number: int, limit: int, _exact: bool) -> Callable[[slice, Tensor], Pass]:
        """See :class:`Equal`."""
        ropes = self.transformer.ropes

        def of(rows: slice, token: Tensor) -> Pass:
            here = position[rows, None]
            masks: Masks = {
                kind: RowMask(here, limit, ropes.get(kind), window) for kind, window in self.windows.items()
            }
            return Pass(token[rows, None], here, masks)

        return of

    def filled(self, kind: LayerKind, rows: slice, number: int) -> list[slice]:
        """See :class:`Equal`: what the longest one has, which the others read under a mask."""
        return [slice(0, max(self.lengths[rows]) + number)]

    def written(self, kind: LayerKind, rows: slice, number: int | None) -> tuple[slice | Tensor, ...]:
        """See :class:`Equal`."""
        if number is None:
            return super().written(kind, rows, number)
        lengths = torch.tensor(self.lengths[rows])
        return lengths + number, torch.arange(len(lengths))

    def _tensor(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long).to(self.device)


class Packed(Padded):
    """Sequences of ``lengths`` one after another, in one row of tokens and one row of cached positions: no padding.

    ``groups`` has the lengths of every group of sequences, this one's among them.
    """

    def __init__(
        self,
        transformer: Transformer,
        prompt: Tensor,
        input_len: int,
        length: int,
        lengths: Sequence[int],
        groups: Sequence[Sequence[int]],
    ) -> None:
        super().__init__(transformer, prompt, input_len, length, lengths)
        self.groups = groups
        steps = length - input_len
        self.rooms = list(accumulate((each + steps for each in self.lengths), initial=0))

    def cache_size(self, rows: slice) -> tuple[int, int]:
        """See :class:`Equal`."""
        return 1, self.rooms[rows.stop] - self.rooms[rows.start]

    def prompt(self) -> Callable[[slice], Pass]:
        """See :class:`Equal`."""

        def of(rows: slice) -> Pass:
            lengths = self.lengths[rows]
            tokens = torch.cat([row[:length] for row, length in zip(self.tokens[rows], lengths, strict=True)])
            ends = list(accumulate(lengths))
            queries = [(end - length, end) for length, end in zip(lengths, ends, strict=True)]
            positions, masks = self._masks(rows, [range(length) for length in lengths], queries)
            longest = max(sum(each[rows]) for each in self.groups)
            return Pass(tokens[None], positions, masks, self._tensor([end - 1 for end in ends]), longest)

        return of

    def step(self, _position: Tensor, number: int, _limit: int, _exact: bool) -> Callable[[slice, Tensor], Pass]:
        """See :class:`Equal`."""

        def of(rows: slice, token: Tensor) -> Pass:
            standing = [range(each, each + 1) for each in self._standing(rows, number)]
            positions, masks = self._masks(rows, standing, [(each, each + 1) for each in range(len(standing))])
            return Pass(token[None, rows], positions, masks, self._tensor(range(len(standing))))

        return of

    def cache(self, layers: Sequence[Cache], rows: slice) -> list[Cache]:
        """See :class:`Equal`."""
        own = slice(self.rooms[rows.start], self.rooms[rows.stop])
        return [tuple(each[:, :, own] for each in layer) for layer in layers]

    def filled(self, kind: LayerKind, rows: slice, number: int) -> list[slice]:
        """See :class:`Equal`."""
        window = self.windows[kind]
        reads = [(0 if window is None else window.first_seen(end), end) for end in self._standing(rows, number)]
        return [slice(room + first, room + end) for room, (first, end) in zip(self._rooms(rows), reads, strict=True)]

    def written(self, kind: LayerKind, rows: slice, number: int | None) -> tuple[slice | Tensor, ...]:
        """See :class:`Equal`."""
        if number is not None:
            standing = [range(each, each + 1) for each in self._standing(rows, number)]
        else:
            standing = [range(each) for each in self.lengths[rows]]
        return (torch.tensor(self._places(rows, standing)),)

    def _rooms(self, rows: slice) -> list[int]:
        """Where each sequence's places begin in the micro-batch's cache."""
        return [each - self.rooms[rows.start] for each in self.rooms[rows]]

    def _standing(self, rows: slice, number: int) -> list[int]:
        """The position of each sequence's token in step ``number``."""
        return [each + number for each in self.lengths[rows]]

    def _places(self, rows: slice, standing: Sequence[range]) -> list[int]:
        return [room + each for room, some in zip(self._rooms(rows), standing, strict=True) for each in some]

    def _masks(
        self, rows: slice, standing: Sequence[range], queries: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Masks]:
        """Positions [tokens] of the sequences' tokens, and what they see; ``queries`` are their places in the row."""
        rooms = self._rooms(rows)
        positions = self._tensor([each for some in standing for each in some])
        slots = self._tensor(self._places(rows, standing))
        ropes = self.transformer.ropes
        return positions, {
            kind: PackedMask(positions, slots, queries, rooms, standing, ropes.get(kind), window)
            for kind, window in self.windows.items()
        }


def sequences_of(
    point: Point, transformer: Transformer, tokens: Tensor, groups: Sequence[Sequence[int]], group: int
) -> Equal:
    """Those of a rank of a ``group``, which reads ``tokens`` [batch, input_len]; ``groups`` has the lengths of each."""
    length = point.input_len + point.output_len
    if point.lengths == "equal":
        return Equal(transformer, tokens, point.input_len, length)
    if point.padding == "packed":
        return Packed(transformer, tokens, point.input_len, length, groups[group], groups)
    return Padded(transformer, tokens, point.input_len, length, groups[group])


def micro_batches(batch_size: int, wanted: int) -> list[slice]:
    """Slices of the batch, as many as ``wanted``, or one per sequence where there are fewer."""
    count = min(batch_size, wanted)
    bounds = [batch_size * number // count for number in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]
