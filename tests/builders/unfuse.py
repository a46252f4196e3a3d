"""The way back from fused matrices, by which tests see that fusing loses nothing."""

import math

import numpy as np

from engines.transformer.params.fusion import Fusion


def unfuse(plan, fused, parts, tensor, *, axis):
    """One layer's canonical tensor, recovered from a fused matrix of ``parts`` without loss.

    ``fused`` is [E, chips, width] of an input (``axis`` 1), or [chips, width, E] of an output (``axis`` 0).
    """
    wanted, start = tensor.name.rpartition(".")[2], 0
    for name, width in parts:
        if name == wanted:
            break
        start += width
    chunk = fused[..., start : start + width] if axis else fused[:, start : start + width]
    matrix = chunk.reshape(chunk.shape[0], -1) if axis else chunk.reshape(-1, chunk.shape[-1])
    length = math.prod(tensor.shape[1:] if axis else tensor.shape[:-1])
    runs = {  # a key/value head may lie there several times, once for each chip that reads it
        real: np.take(matrix, np.arange(padded, padded + size), axis=axis)
        for padded, real, size in Fusion(plan, 0).blocks(wanted, length)
    }
    return np.concatenate(list(runs.values()), axis=axis).reshape(tensor.shape)
