"""An open checkpoint: every canonical tensor of a model, any range of it without the rest."""

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.core.errors import InvalidRequest
from engines.core.model import Model
from engines.weights.checkpoint.check_values import EXPONENTS, check_equal, check_finite
from engines.weights.checkpoint.describe import check_matches, locations_of
from engines.weights.checkpoint.files import BUFFERS, KEY, Files
from engines.weights.checkpoint.identity import identity
from engines.weights.checkpoint.quantized import FLOAT8, MXFP4
from engines.weights.checkpoint.tensor_location import TensorLocation
from engines.weights.random import Floats, Tensor

LINES: Final = 256
"""Rows of a stored matrix that are transposed at once, few enough to stay in the CPU cache."""
_CHECKED: Final[set[str]] = set()
"""Identities of checkpoints whose values this process has checked."""


def open_checked(folder: Path, model: Model) -> "Checkpoint":
    """The checkpoint in ``folder``, with its values checked, once per process.

    Raises:
        InvalidRequest: see :class:`Checkpoint` and :meth:`Checkpoint.check_values`.
        Unsupported: safetensors is not installed.
    """
    opened, content = Checkpoint(folder, model), identity(folder)
    if content not in _CHECKED:
        opened.check_values()
        _CHECKED.add(content)
    return opened


class Checkpoint:
    """Implements :class:`engines.weights.random.StoredWeights` for one model and one folder."""

    def __init__(self, folder: Path, model: Model) -> None:
        """Open it and compare its headers with the model; reads no weight.

        Raises:
            InvalidRequest: it is not a checkpoint, or of another model, or a tensor is missing, extra or of another
            shape. Unsupported: safetensors is not installed.
        """
        check_matches(model, folder)
        self.folder = folder
        self.files = Files(folder)
        located = locations_of(model, folder, self.files.entries)
        self.locations, self.tied_copy = located.tensors, located.tied_copy
        _check_tensors(self.files, [*self.locations.values(), *filter(None, [self.tied_copy])], located.apart)

    def read(self, tensor: Tensor, index: Sequence[slice]) -> Floats:
        """``tensor[index]`` as float32; only that range of the file is read, whole inner dimensions of it.

        Raises:
            ValueError: the tensor of a stack is reshaped in its first dimension.
        """
        location = self.locations[tensor.name]
        bounds = [slice(*each.indices(size)[:2]) for each, size in zip(index, tensor.shape, strict=True)]
        shape = tuple(max(0, each.stop - each.start) for each in bounds)
        if 0 in shape:
            return np.zeros(shape, np.float32)
        if location.stack is None:
            return self._one(location, 0, tensor.shape, bounds)
        if tensor.shape[0] != location.stack:
            raise ValueError(f"{tensor.name} is a stack of {location.stack}, not of shape {tensor.shape}")
        found = np.empty(shape, np.float32)
        for number in range(bounds[0].start, bounds[0].stop):
            found[number - bounds[0].start] = self._one(location, number, tensor.shape[1:], bounds[1:])
        return found

    def _one(self, location: TensorLocation, number: int, shape: tuple[int, ...], bounds: Sequence[slice]) -> Floats:
        """A range of tensor ``number`` of a stack, or of the only one, of ``shape``."""
        split = _rows_end(shape, location.rows)
        rows, columns = (_outer(shape[part], bounds[part]) for part in (slice(None, split), slice(split, None)))
        block = self._block(location, number, rows, columns)
        outer, inner = [], []
        for part in (slice(None, split), slice(split, None)):
            sizes, kept = list(shape[part]), list(bounds[part])
            if sizes:
                sizes[0], kept[0] = kept[0].stop - kept[0].start, slice(None)
            outer += sizes
            inner += kept
        return block.reshape(outer)[tuple(inner)]

    def _block(self, location: TensorLocation, number: int, rows: slice, columns: slice) -> Floats:
        """[rows, columns] of one canonical tensor of a stack, or of the only one."""
        block = np.empty((rows.stop - rows.start, columns.stop - columns.start), np.float32)
        name, before = location.stored(number)
        held = slice(rows.start + location.first_row, rows.stop + location.first_row)
        for stored, target in location.ranges(columns):
            span, step = slice(stored.start, stored.stop), slice(None, None, stored.step)
            if location.is_vector:
                block[:, target] = self._stored(name, before, span)[step]
            elif not location.transposed:
                block[:, target] = self._stored(name, before, held, span)[:, step]
            else:
                for start in range(0, target.stop - target.start, LINES):
                    count = min(LINES, target.stop - target.start - start)
                    first = stored.start + start * stored.step
                    lines = slice(first, first + (count - 1) * stored.step + 1)
                    read = self._stored(name, before, lines, held)[step].astype(np.float32)
                    block[:, target.start + start : target.start + start + count] = read.T
        if location.added:
            block += np.float32(location.added)
        return block

    def _stored(self, name: str, before: tuple[slice, ...], *index: slice) -> NDArray[Any]:
        """A range of a stored tensor, or of the one that ``before`` selects in its first dimension."""
        found = self.files.read(name, *before, *index)
        return found[0] if before else found

    def check_values(self) -> None:
        """Check the values of all tensors that the model uses, reading them once, in file order.

        Raises:
            InvalidRequest: a weight is NaN or infinite, or a tied model's two copies of its embedding differ.
        """
        check_finite(self.files, {name for location in self.locations.values() for name in location.names})
        if self.tied_copy is not None:
            check_equal(self.files, self.locations["embedding"].name, self.tied_copy.name)


def _rows_end(shape: tuple[int, ...], rows: int) -> int:
    """How many leading dimensions of ``shape`` make up the rows; the most of them, where some are 1."""
    return max(end for end in range(len(shape) + 1) if math.prod(shape[:end]) == rows)


def _outer(shape: tuple[int, ...], bounds: Sequence[slice]) -> slice:
    """The flat range of a range along the first of ``shape``, the other dimensions whole."""
    if not shape:
        return slice(0, 1)
    inner = math.prod(shape[1:])
    return slice(bounds[0].start * inner, bounds[0].stop * inner)


def _check_tensors(files: Files, locations: Sequence[TensorLocation], apart: Collection[str]) -> None:
    wanted = {name: location.shape for location in locations for name in location.names}
    fetch = "download the checkpoint again, or use the model that it contains"
    for name, shape in wanted.items():
        if name not in files.entries:
            raise InvalidRequest(KEY, files.folder, f"has no tensor {name} {list(shape)}", fetch)
        found = files.entries[name]
        if found.shape != shape:
            raise InvalidRequest(
                KEY, files.folder, f"has {name} of shape {list(found.shape)}, which should be {list(shape)}", fetch
            )
        if found.dtype not in (*EXPONENTS, FLOAT8, MXFP4):
            raise InvalidRequest(
                KEY, files.folder, f"has {name} in {found.dtype}", f"give one stored as {', '.join(EXPONENTS)}"
            )
    for name, entry in files.entries.items():
        if name not in wanted and not BUFFERS.search(name) and name not in apart:
            raise InvalidRequest(
                KEY, files.folder, f"has a tensor {name} {list(entry.shape)} that the model does not use", fetch
            )
