"""An open checkpoint: every canonical tensor of a model, any range of it without the rest."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from engines.core.errors import InvalidRequest
from engines.core.model import Model
from engines.weights.checkpoint.check_values import EXPONENTS, check_equal, check_finite
from engines.weights.checkpoint.families import check_same, places_of
from engines.weights.checkpoint.files import KEY, Files
from engines.weights.checkpoint.identity import identity
from engines.weights.checkpoint.tensor_location import TensorLocation
from engines.weights.random import Floats, Tensor

BUFFERS: Final = re.compile(r"\.(rotary_emb\.inv_freq|attn\.(masked_)?bias|attention\.(masked_)?bias)$")
"""Constants that old checkpoints hold beside the weights: rotary frequencies and causal masks."""
LINES: Final = 256
"""Lines of a file that are transposed at once, few enough to stay in a processor's cache."""
_FOUND_GOOD: Final[set[str]] = set()
"""Identities of checkpoints that this process has read through."""


def open_checked(folder: Path, model: Model) -> "Checkpoint":
    """The checkpoint in ``folder``, once its values are known to be good: they are read through once a process.

    Raises:
        InvalidRequest: see :class:`Checkpoint` and :meth:`Checkpoint.check_values`.
        Unsupported: safetensors is not installed.
    """
    opened, content = Checkpoint(folder, model), identity(folder)
    if content not in _FOUND_GOOD:
        opened.check_values()
        _FOUND_GOOD.add(content)
    return opened


class Checkpoint:
    """Implements :class:`engines.weights.random.StoredWeights` for one model and one folder."""

    def __init__(self, folder: Path, model: Model) -> None:
        """Open it and compare its headers with the model; reads no weight.

        Raises:
            InvalidRequest: it is no checkpoint, or of another model, or a tensor is missing, extra or of another shape.
            Unsupported: safetensors is not installed.
        """
        check_same(model, folder)
        self.folder = folder
        self.places, twin = places_of(model, folder)
        self.files = Files(folder)
        self.twin = twin if twin is not None and twin.name in self.files.entries else None
        _check_tensors(self.files, [*self.places.values(), *([self.twin] if self.twin else [])])

    def read(self, tensor: Tensor, index: Sequence[slice]) -> Floats:
        """``tensor[index]`` as float32; only that range of the file is read, whole inner dimensions of it."""
        place = self.places[tensor.name]
        split = _rows_end(tensor.shape, place.rows)
        bounds = [slice(*each.indices(size)[:2]) for each, size in zip(index, tensor.shape, strict=True)]
        shape = tuple(max(0, each.stop - each.start) for each in bounds)
        if 0 in shape:
            return np.zeros(shape, np.float32)
        rows, columns = (_outer(tensor.shape[part], bounds[part]) for part in (slice(None, split), slice(split, None)))
        block = self._block(place, rows, columns)
        outer, inner = [], []
        for part in (slice(None, split), slice(split, None)):
            sizes, kept = list(tensor.shape[part]), list(bounds[part])
            if sizes:
                sizes[0], kept[0] = shape[part][0], slice(None)
            outer += sizes
            inner += kept
        return block.reshape(outer)[tuple(inner)]

    def _block(self, place: TensorLocation, rows: slice, columns: slice) -> Floats:
        """[rows, columns] of a canonical tensor."""
        block = np.empty((rows.stop - rows.start, columns.stop - columns.start), np.float32)
        for stored, target in place.ranges(columns):
            if len(place.shape) == 1:
                block[:, target] = self.files.read(place.name, stored)
            elif not place.transposed:
                block[:, target] = self.files.read(place.name, rows, stored)
            else:
                for start in range(0, target.stop - target.start, LINES):
                    lines = slice(stored.start + start, min(stored.start + start + LINES, stored.stop))
                    read = self.files.read(place.name, lines, rows).astype(np.float32)
                    block[:, target.start + start : target.start + start + len(read)] = read.T
        return block

    def check_values(self) -> None:
        """Read all that the model takes once, in order, to be sure of it before any device holds some.

        Raises:
            InvalidRequest: a weight is NaN or infinite, or a tied model's two copies of its embedding differ.
        """
        check_finite(self.files, {place.name for place in self.places.values()})
        if self.twin is not None:
            check_equal(self.files, self.places["embedding"].name, self.twin.name)


def _rows_end(shape: tuple[int, ...], rows: int) -> int:
    """How many leading dimensions of ``shape`` make up the rows; the most of them, where some are 1."""
    return max(end for end in range(len(shape) + 1) if math.prod(shape[:end]) == rows)


def _outer(shape: tuple[int, ...], bounds: Sequence[slice]) -> slice:
    """The flat range of a range along the first of ``shape``, the other dimensions whole."""
    if not shape:
        return slice(0, 1)
    inner = math.prod(shape[1:])
    return slice(bounds[0].start * inner, bounds[0].stop * inner)


def _check_tensors(files: Files, places: Sequence[TensorLocation]) -> None:
    wanted = {place.name: place.shape for place in places}
    fetch = "fetch the checkpoint once more, or give the model that it holds"
    for name, shape in wanted.items():
        if name not in files.entries:
            raise InvalidRequest(KEY, files.folder, f"lacks the tensor {name} {list(shape)}", fetch)
        found = files.entries[name]
        if found.shape != shape:
            raise InvalidRequest(
                KEY, files.folder, f"has {name} of shape {list(found.shape)}, which should be {list(shape)}", fetch
            )
        if found.dtype not in EXPONENTS:
            raise InvalidRequest(
                KEY, files.folder, f"has {name} in {found.dtype}", f"give one stored as {', '.join(EXPONENTS)}"
            )
    for name, entry in files.entries.items():
        if name not in wanted and not BUFFERS.search(name):
            raise InvalidRequest(
                KEY, files.folder, f"has a tensor {name} {list(entry.shape)} that the model has no use for", fetch
            )
