"""A model's matrices as their number format holds them, read back in float32: what quantisation leaves of them."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np

from engines.core.dtypes import INTEGERS, LARGEST, MX_BLOCK
from engines.core.point import Point
from engines.weights.formats import Blocks, Groups, channel_scale, quantized, steps
from engines.weights.pruned.source import MATRICES, fan_in_axes
from engines.weights.random import Floats, Source, Tensor, tensors, values

TABLES: Final = {"embedding": (1,), "lm_head": (0,)}
"""Matrices of the vocabulary → their axis of E: each token has a scale of its own."""


def rounds(point: Point) -> bool:
    """Whether a matrix of the point is held in another format than float32."""
    return {point.weight_dtype, point.head_format} != {"float32"}


class RoundedWeights:
    """Implements :class:`engines.weights.random.StoredWeights`: ``source`` as a point's number formats hold it.

    Each matrix is rounded by itself, whole; vectors, routers and learned positions stay as they are. ``jax`` multiplies
    the output matrices of a parallel block's attention and feed-forward as one: where a scale is that of all inputs of
    an output (``weight_group_size`` unset), theirs is the larger of both, which may round one of them more coarsely
    than here. Which matrices are one depends on the plan, and a model's quality must not.
    """

    def __init__(self, point: Point, source: Source) -> None:
        self.source = source
        self.weight_dtype, self.head_format = point.weight_dtype, point.head_format
        self.group_size = MX_BLOCK if point.weight_dtype == "mxfp4" else point.weight_group_size
        self.scale_dtype = "float16" if point.act_dtype == "float16" else "bfloat16"
        self._specs = tensors(point.model)
        self._tensor = lru_cache(maxsize=4)(self._made)

    def read(self, tensor: Tensor, index: Sequence[slice]) -> Floats:
        """``tensor[index]`` as float32; the tensor may be :meth:`Tensor.reshaped`."""
        found: Floats = self._tensor(tensor.name).reshape(tensor.shape)[tuple(index)]
        return found

    def _made(self, name: str) -> Floats:
        """The whole tensor."""
        found = values(self._specs[name], self.source)
        if name in TABLES:
            return rounded(found, TABLES[name], self.head_format)
        short = name.split(".", 2)[-1]
        if name.startswith("layers.") and short.rpartition(".")[2] in MATRICES:
            return rounded(found, fan_in_axes(short), self.weight_dtype, self.group_size, self.scale_dtype)
        return found


def rounded(
    matrix: Floats, axes: tuple[int, ...], dtype: str, group_size: int | None = None, scale_dtype: str = "bfloat16"
) -> Floats:
    """The matrix as ``dtype`` holds it, in float32; ``axes``, neighbours, are those along which a matmul sums.

    With ``group_size`` so many inputs share a scale, which has ``scale_dtype``, else all inputs of an output.
    """
    if dtype == "float32":
        return matrix
    before, after = (math.prod(part) for part in (matrix.shape[: axes[0]], matrix.shape[axes[-1] + 1 :]))
    flat = matrix.reshape(before, -1, after)
    whole = tuple(slice(0, size) for size in flat.shape)
    found: Any
    if group_size is not None:
        index = (whole[0], slice(0, flat.shape[1] // group_size), whole[2])
        of_values = (*index[:2], slice(0, group_size), whole[2])
        if dtype == "mxfp4":
            blocks = Blocks(flat.__getitem__, 1, group_size)
            found = _held(blocks.values(of_values), dtype) * blocks.scales(index)[:, :, None]
        else:
            groups = Groups(flat.__getitem__, 1, group_size, steps(dtype), _format(scale_dtype))
            found = (groups.values(of_values) - groups.zeros(index)[:, :, None]) * groups.scales(index)[:, :, None]
    elif dtype in LARGEST:
        scale = channel_scale(flat.shape, (1,), flat.__getitem__, LARGEST[dtype])
        held = _held(quantized((1,), flat.__getitem__, scale, dtype in INTEGERS)(whole), dtype)
        found = held * scale((whole[0], whole[2]))[:, None]
    else:
        found = _held(flat, dtype)
    return np.asarray(found, np.float32).reshape(matrix.shape)


def _held(scaled: Floats, dtype: str) -> Floats:
    """Values that the format can hold, each the nearest to the one given; integers are rounded before."""
    if dtype in INTEGERS:
        return scaled
    if dtype == "bfloat16":  # by its bits, to nearest even: PyTorch alone brings no such type to numpy
        bits = np.ascontiguousarray(scaled, np.float32).view(np.uint32)
        nearest = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
        return nearest.view(np.float32)
    held: Floats = scaled.astype(_format(dtype)).astype(np.float32)
    return held


def _format(dtype: str) -> Any:
    """The type in numpy of a format of at most 16 bits."""
    if dtype == "float16":
        return np.float16
    import ml_dtypes

    return {
        "bfloat16": ml_dtypes.bfloat16,
        "float8_e4m3": ml_dtypes.float8_e4m3fn,
        "mxfp4": ml_dtypes.float4_e2m1fn,
    }[dtype]
