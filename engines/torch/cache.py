"""What a rank keeps of the tokens that it has read."""

import torch

from engines.core.dtypes import BYTES_PER_ELEMENT
from engines.core.layer_kind import LayerKind
from engines.core.point import Point
from engines.torch.attention import Cache
from engines.torch.shard import Shard
from engines.torch.transformer import window_of


def cache_shapes(
    shard: Shard, kind: LayerKind, batch_size: int, length: int, rolls: bool = True
) -> list[tuple[int, ...]]:
    """Shapes of the tensors of one layer: keys and values, or latent vectors with the turned key.

    A layer with a window keeps that many positions where it ``rolls``, else all.
    """
    model, window = shard.model, window_of(shard.model, kind, length) if rolls else None
    room = length if window is None else window.room
    if model.kv_latent_dim is not None:
        return [(batch_size, 1, room, model.kv_latent_dim + model.rotated_dim)]
    kv_heads = shard.kv_heads.stop - shard.kv_heads.start
    return [(batch_size, kv_heads, room, model.head_dim)] * 2


def make_cache(
    shard: Shard, batch_size: int, length: int, dtype: torch.dtype, device: torch.device, rolls: bool = True
) -> list[Cache]:
    """The cache of each layer of this rank's stage."""
    # Separate tensors: code that torch.compile generates for a write to a slice of one large tensor copies all of it.
    return [
        tuple(
            torch.zeros(shape, dtype=dtype, device=device)
            for shape in cache_shapes(shard, shard.model.layer_kinds[number], batch_size, length, rolls)
        )
        for number in shard.layers
    ]


def cache_bytes(point: Point) -> float:
    """Bytes of the cache of all layers, held once."""
    one = Shard(point.model, 1, 1, 0)
    length = point.input_len + point.output_len
    elements = 0
    for kind in point.model.layer_kinds:
        for shape in cache_shapes(one, kind, point.batch_size, length):
            elements += torch.Size(shape).numel()
    return elements * BYTES_PER_ELEMENT[point.kv_dtype]
