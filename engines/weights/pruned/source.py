"""The weights of a pruned model as a source of values: any range of any tensor, out of the whole model's."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.core.model import Model
from engines.core.pruning import head_groups, left, pruned_model, pruning_of
from engines.weights.pruned.scores import LayerScores
from engines.weights.random import Floats, Source, Tensor, tensors, values

MATRICES: Final = ("q", "k", "v", "o", "q_a", "q_b", "kv_a", "k_b", "v_b", "gate", "up", "wi", "wo")
"""Of which two of four are left out."""
Indices = NDArray[np.int64]
Score = Callable[[int], LayerScores]
"""The scores of a layer of the whole model, by its number."""


class PrunedWeights:
    """Implements :class:`engines.weights.random.StoredWeights` for ``pruned_model(model, pruning)``."""

    def __init__(self, model: Model, pruning: str, source: Source, score: Score) -> None:
        """``score`` is asked once a layer."""
        self.whole, self.pruning, self.source = model, pruning_of(pruning), source
        self.model = pruned_model(model, pruning)
        self._whole_specs, self._specs = tensors(model), tensors(self.model)
        self.score = lru_cache(maxsize=None)(score)
        self.layers = self._layers_kept()
        self._tensor = lru_cache(maxsize=4)(self._made)

    def read(self, tensor: Tensor, index: Sequence[slice]) -> Floats:
        """``tensor[index]`` as float32; the tensor may be :meth:`Tensor.reshaped`."""
        found: Floats = self._tensor(tensor.name).reshape(tensor.shape)[tuple(index)]
        return found

    def heads(self, number: int) -> Indices:
        """Units of heads that stay in layer ``number`` of the whole model, ascending."""
        return _best(self.score(number).heads, left(head_groups(self.whole), self.pruning.heads))

    def columns(self, number: int, lead: str) -> Indices:
        """Columns that stay of the feed-forward ``lead`` of that layer; of experts [experts, columns]."""
        scores = self.score(number).columns[lead]
        return _best(scores, left(scores.shape[-1], self.pruning.columns))

    def _layers_kept(self) -> Sequence[int]:
        if not self.pruning.layers:
            return range(self.whole.num_layers)
        scores = np.asarray([self.score(number).layer for number in range(self.whole.num_layers)])
        return [int(each) for each in _best(scores, self.model.num_layers)]

    def _made(self, name: str) -> Floats:
        """The whole of the pruned tensor."""
        if not name.startswith("layers."):
            return values(self._whole_specs[name], self.source)
        _, place, short = name.split(".", 2)
        number = self.layers[int(place)]
        spec = self._whole_specs[f"layers.{number}.{short}"]
        found = values(spec, self.source)
        wanted = self._specs[name].shape
        for axis, (has, keeps) in enumerate(zip(spec.shape, wanted, strict=True)):
            if has != keeps:
                found = np.ascontiguousarray(self._kept(found, axis, number, short))
        if self.pruning.two_of_four and short.rpartition(".")[2] in MATRICES:
            found = two_of_four(found, fan_in_axes(short))
        return found

    def _kept(self, found: Floats, axis: int, number: int, short: str) -> Floats:
        """``found`` with what stays along ``axis``: columns of a feed-forward, or heads."""
        lead = short[: short.rfind(".") + 1]
        if lead in self.score(number).columns and short.removeprefix(lead).split("_")[0] in ("gate", "up", "wi", "wo"):
            kept = self.columns(number, lead)
            if kept.ndim == 1:
                return np.take(found, kept, axis)
            spread = np.expand_dims(kept, tuple(each for each in range(1, found.ndim) if each != axis))
            taken: Floats = np.take_along_axis(found, spread, axis)
            return taken
        kept, each = self.heads(number), found.shape[axis] // head_groups(self.whole)
        places = (kept[:, None] * each + np.arange(each)).reshape(-1)
        of_heads: Floats = np.take(found, places, axis)
        return of_heads


def fan_in_axes(short: str) -> tuple[int, ...]:
    """The axes of a canonical matrix along which a matmul sums: of o heads and their dimensions, of others one."""
    name = short.rpartition(".")[2]
    if short.startswith("experts."):
        return (1,)
    return (0, 1) if name == "o" else (0,)


def two_of_four(matrix: Floats, axes: tuple[int, ...]) -> Floats:
    """The matrix with the two of least magnitude of every four inputs in a row set to 0.

    A last group of fewer than four keeps the larger half of it, rounded up.
    """
    rest = tuple(each for each in range(matrix.ndim) if each not in axes)
    order = (*rest, *axes)
    turned = matrix.transpose(order)
    flat = np.array(turned.reshape(*(matrix.shape[each] for each in rest), -1))
    inputs = flat.shape[-1]
    whole = inputs - inputs % 4
    for part in (flat[..., :whole], flat[..., whole:]):
        size = min(4, part.shape[-1])
        if size > 1:
            groups = part.reshape(*part.shape[:-1], -1, size)
            smallest = np.argsort(np.abs(groups), axis=-1, kind="stable")[..., : size // 2]
            part[...] = np.where(_marked(smallest, groups), 0.0, groups).reshape(part.shape)
    return np.ascontiguousarray(flat.reshape(turned.shape).transpose(np.argsort(order)))


def _marked(places: Indices, groups: Floats) -> NDArray[np.bool_]:
    marks = np.zeros(groups.shape, bool)
    np.put_along_axis(marks, places, True, -1)
    return marks


def _best(scores: NDArray[np.float64], count: int) -> Indices:
    """Indices of the ``count`` highest of the last axis, ascending; of equal ones the first."""
    order = np.argsort(-scores, axis=-1, kind="stable")[..., :count]
    return np.sort(order, axis=-1)
