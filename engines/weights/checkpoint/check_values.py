"""Checks of the stored values, in one pass over the files, block by block."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.core.errors import InvalidRequest
from engines.weights.checkpoint.files import KEY, Files

EXPONENTS: Final[Mapping[str, np.unsignedinteger[Any]]] = {
    "F32": np.uint32(0x7F800000),
    "F16": np.uint16(0x7C00),
    "BF16": np.uint16(0x7F80),
}
"""Stored format → the bits of its exponent: all are 1 in NaN and infinity alone (IEEE 754, and bfloat16 likewise)."""
BLOCK_BYTES: Final = 1 << 22


def check_finite(files: Files, names: Collection[str]) -> None:
    """Check the tensors of ``names``, in the order of the files.

    Raises:
        InvalidRequest: one holds NaN or infinity.
    """
    for name in files.entries:
        if name not in names:
            continue
        exponent = EXPONENTS.get(files.entries[name].dtype, EXPONENTS["F32"])  # quantized ones are read as float32
        for block in _blocks(files, name):
            if (np.ascontiguousarray(block).view(exponent.dtype) & exponent).max() == exponent:
                raise InvalidRequest(
                    KEY, files.folder, f"has NaN or infinity in {name}", "use a checkpoint with finite weights"
                )


def check_equal(files: Files, first: str, second: str) -> None:
    """Check that two tensors of the same shape are equal.

    Raises:
        InvalidRequest: they differ.
    """
    for one, other in zip(_blocks(files, first), _blocks(files, second), strict=True):
        if not np.array_equal(one, other):
            raise InvalidRequest(
                KEY,
                files.folder,
                f"ties its embedding to its output, but {first} and {second} differ",
                'set "tie_word_embeddings": false in its config.json, and model.tied_embedding=false',
            )


def _blocks(files: Files, name: str) -> Iterator[NDArray[Any]]:
    """A tensor, a few rows at a time."""
    entry = files.entries[name]
    row_bytes = int(np.prod(entry.shape[1:])) * EXPONENTS.get(entry.dtype, EXPONENTS["F32"]).itemsize
    step = max(1, BLOCK_BYTES // row_bytes)
    rest = [slice(0, size) for size in entry.shape[1:]]
    for start in range(0, entry.shape[0], step):
        yield files.read(name, slice(start, min(start + step, entry.shape[0])), *rest)
