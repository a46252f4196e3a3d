"""Any range of a fused matrix from the canonical tensors.

A *chunk* is one chip's share of the columns of all tensors of a projection: ``[q | k | v | gate | up]`` of chip 0, then
of chip 1, and so on. Padding (heads, or key/value columns that do not split evenly) is zeros, which leaves the result
unchanged: a padded query head is multiplied by zero rows of o.
"""

import math
from collections.abc import Mapping

import numpy as np

from engines.transformer.params.memory_layout import LANES
from engines.transformer.params.tree import Parts
from engines.transformer.partition.overlap import Overlap
from engines.transformer.partition.plan import Plan
from engines.weights.random import Floats, Source, Tensor, tensors, values


def input_parts(plan: Plan) -> dict[str, Parts]:
    """Projection → its input tensors, each with its columns in one chunk.

    There is one projection for all tensors, or one for attention and one for the feed-forward; in an overlapped block,
    one for attention and one for each input tensor of the feed-forward.
    """
    padded = plan.padded
    if plan.model.attention.is_latent:
        attention: Parts = tuple(padded.latent_widths.items())
    else:
        attention = (("q", padded.q_width), ("k", padded.kv_width), ("v", padded.kv_width))
    feed_forward = tuple((name, padded.ffn_width) for name in plan.model.ffn.inputs)
    if plan.overlap is Overlap.OVERLAPPED_BLOCK:
        return {"attn": attention, **{name: ((name, width),) for name, width in feed_forward}}
    return {"fused": attention + feed_forward} if plan.model.shares_norm else {"attn": attention, "ffn": feed_forward}


def output_parts(plan: Plan) -> dict[str, Parts]:
    """Projection → its output tensors, each with its rows in one chunk.

    An overlapped block has two where a step has many tokens. With few, a matmul takes as long as reading its weights,
    and two matmuls take longer than the all-gather that one of them would hide.
    """
    attention, feed_forward = (("o", plan.padded.o_width),), ((plan.model.ffn.output, plan.padded.ffn_width),)
    separate = plan.overlap is Overlap.OVERLAPPED_BLOCK and plan.batch_size >= LANES
    if plan.model.shares_norm and not separate:
        return {"fused": attention + feed_forward}
    return {"attn": attention, "ffn": feed_forward}


def shared_parts(plan: Plan) -> tuple[Parts, Parts] | None:
    """The tensors of the expert that reads every token, (inputs, outputs): one chunk a chip, as :func:`input_parts`."""
    experts = plan.model.experts
    if experts is None or experts.shared is None:
        return None
    width = experts.shared.d_ff // plan.chips
    return tuple((f"shared.{name}", width) for name in experts.shared.inputs), (
        (f"shared.{experts.shared.output}", width),
    )


def matmul_widths(plan: Plan, parts: Parts) -> list[int]:
    """Columns in one chunk of each part of an input projection: attention's inputs, then the feed-forward's.

    Attention's are q | k | v together, or q and k | v where :attr:`Plan.separates_tensors`; tensors of latent attention
    are parts of their own.
    """
    widths = dict(parts)
    attention = []
    if "k" in widths:
        q, both = widths.pop("q"), widths.pop("k") + widths.pop("v")
        attention = [q, both] if plan.separates_tensors else [q + both]
    return attention + list(widths.values())


class Fusion:
    """Ranges of the fused matrices of a plan, made from a source of the canonical tensors."""

    def __init__(self, plan: Plan, source: Source) -> None:
        self.plan = plan
        self.source = source
        self.canonical: Mapping[str, Tensor] = tensors(plan.model)

    def inputs(self, parts: Parts, layer: int, rows: slice, chunks: slice) -> Floats:
        """Input columns [rows, chunks, width] of one layer."""
        strips = []
        for name, width in parts:
            tensor = self.canonical[f"layers.{layer}.{name}"]
            tensor = tensor.reshaped(tensor.shape[0], math.prod(tensor.shape[1:]))
            strip = self._strip(tensor, name, 1, chunks=chunks, width=width, across=rows)
            strips.append(strip.reshape(strip.shape[0], -1, width))
        return np.concatenate(strips, axis=-1)

    def outputs(self, parts: Parts, layer: int, chunks: slice, columns: slice) -> Floats:
        """Output rows [chunks, width, columns] of one layer."""
        strips = []
        for name, width in parts:
            tensor = self.canonical[f"layers.{layer}.{name}"]
            tensor = tensor.reshaped(math.prod(tensor.shape[:-1]), tensor.shape[-1])
            strip = self._strip(tensor, name, 0, chunks=chunks, width=width, across=columns)
            strips.append(strip.reshape(-1, width, strip.shape[-1]))
        return np.concatenate(strips, axis=1)

    def input_bias(self, parts: Parts, layer: int, chunks: slice) -> Floats:
        """Biases [chunks, width] of one layer's input columns; zeros for a tensor that has none."""
        strips = []
        count = chunks.stop - chunks.start
        for name, width in parts:
            tensor = self.canonical.get(f"layers.{layer}.{name}_bias")
            if tensor is None:
                strips.append(np.zeros((count, width), np.float32))
                continue
            tensor = tensor.reshaped(1, math.prod(tensor.shape))
            strips.append(
                self._strip(tensor, name, 1, chunks=chunks, width=width, across=slice(0, 1)).reshape(count, width)
            )
        return np.concatenate(strips, axis=-1)

    def _strip(self, tensor: Tensor, name: str, axis: int, *, chunks: slice, width: int, across: slice) -> Floats:
        """Padded columns (or rows) of ``chunks`` of one matrix [·, ·], split along ``axis``."""
        start, stop = chunks.start * width, chunks.stop * width
        shape = [across.stop - across.start] * 2
        shape[axis] = stop - start
        strip = np.zeros(shape, np.float32)
        for padded, real, length in self.blocks(name, tensor.shape[axis]):
            first, last = max(start, padded), min(stop, padded + length)
            if first >= last:
                continue
            index, target = [across, across], [slice(None), slice(None)]
            index[axis] = slice(real + first - padded, real + last - padded)
            target[axis] = slice(first - start, last - start)
            strip[tuple(target)] = values(tensor, self.source, index)
        return strip

    def blocks(self, name: str, length: int) -> list[tuple[int, int, int]]:
        """(padded start, real start, length) of each contiguous run between padding."""
        model, plan = self.plan.model, self.plan
        if model.attention.is_latent:
            return [(0, 0, length)]  # heads are padded behind the last
        if name in ("k", "v") and plan.padded.kv_copies > 1:
            copies, dim = plan.padded.kv_copies, model.head_dim
            return [(place * dim, place // copies * dim, dim) for place in range(copies * model.num_kv_heads)]
        if name not in ("q", "o"):
            return [(0, 0, length)]
        real = model.num_heads // model.num_kv_heads * model.head_dim
        padded = plan.padded.group * model.head_dim
        return [(head * padded, head * real, real) for head in range(model.num_kv_heads)]
