"""The arrays of a plan: which there are, how they lie on a mesh, and making them from a source of their values.

Describing them needs no device; making them hashes, or reads, only what each device holds. Matrices are fused by the
chip that works on them (see ``fusion``), so one matmul and one collective serve all that a projection computes (Pope
et al. 2022, sections 3.4 and 3.5).

======================  ===========================  =================================================
name                    shape                        what
======================  ===========================  =================================================
``embedding``           [vocab, E]                   split like a matrix whose columns are the vocabulary
``lm_head``             [vocab, E]                   where untied
``positions``           [P, E]                       on every chip
``layer.NAME.in``       [layers, E, chips · width]   columns of every chunk: q | k | v, gate | up, one, or all
``layer.NAME.out``      [layers, chips · width, E]   rows of every chunk: o, wo, or both
``layer.NAME.in_bias``  [layers, chips, width]
``layer.NAME.out_bias`` [layers, E]                  on every chip, as are norm scales and biases
======================  ===========================  =================================================

Chunks and their widths are one dimension of a matrix: a TPU lays an array out in tiles of its last two, and merging
others into them later would copy the weights in every layer. NAME is ``fused``, or ``attn`` and ``ffn``, or a tensor of
the feed-forward (``engines.transformer.params.fusion``). A quantised matrix M (int8, int4, float8_e4m3) has a float32
``M_scale`` for each output channel.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental.layout import Format
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from numpy.typing import NDArray

from engines.core.dtypes import LARGEST
from engines.transformer.layers.online_softmax import query_factor
from engines.transformer.params.fusion import Fusion, input_parts, output_parts
from engines.transformer.params.memory_layout import laid_out, moved
from engines.transformer.params.quantize import float_dtype, stored_dtype
from engines.transformer.partition.plan import Plan
from engines.weights.random import Floats, Source, values

Index = tuple[slice, ...]
Fill = Callable[[Index], NDArray[Any]]
"""Index with explicit bounds → the values there."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One array: its shape, its dtype, how it is split, and its values in a range."""

    shape: tuple[int, ...]
    dtype: str
    spec: P
    fill: Fill


def parameter_specs(plan: Plan) -> dict[str, P]:
    """Name → how it is split over the mesh axes."""
    return {name: each.spec for name, each in parameters(plan).items()}


def abstract_parameters(plan: Plan, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, dtypes and shardings without a value, for any mesh, its devices present or not."""
    return {
        name: jax.ShapeDtypeStruct(each.shape, stored_dtype(each.dtype), sharding=lying(plan, mesh, each))
        for name, each in parameters(plan).items()
    }


def make_parameters(plan: Plan, mesh: Mesh, source: Source) -> dict[str, jax.Array]:
    """The arrays on the mesh's devices. Each device's part is made from its own slice of the canonical tensors."""
    made: dict[str, jax.Array] = {}
    described = parameters(plan, source)
    for name, each in described.items():
        # A scale is found for all that is asked for at once, and kept for when it is itself asked for.
        step = each.shape[0] if f"{name}_scale" in described else _rows_at_once(each.shape)

        def part(index: Any, each: Parameter = each, step: int = step) -> NDArray[Any]:
            first, *rest = (slice(*at.indices(size)[:2]) for at, size in zip(index, each.shape, strict=True))
            held = np.empty([at.stop - at.start for at in (first, *rest)], stored_dtype(each.dtype))
            # Values are float32 until here: some rows at a time, so that the host never holds them all so wide.
            for start in range(first.start, first.stop, step):
                stop = min(start + step, first.stop)
                held[start - first.start : stop - first.start] = each.fill((slice(start, stop), *rest))
            return held

        array = jax.make_array_from_callback(each.shape, NamedSharding(mesh, each.spec), part)
        made[name] = moved(array, lying(plan, mesh, each))
    return made


def lying(plan: Plan, mesh: Mesh, each: "Parameter") -> Format | NamedSharding:
    """How a parameter is split and lies: by rows, as a loop over decode steps reads it.

    Gathered matrices are cut into tensors at columns that are no multiple of a tile: they are left to the device.
    """
    if plan.batch_axes:
        return NamedSharding(mesh, each.spec)
    return laid_out(mesh, each.spec, range(len(each.shape)))


def parameters(plan: Plan, source: Source = 0) -> dict[str, Parameter]:
    """Every parameter by name. Values are made only when asked for."""
    model, fusion = plan.model, Fusion(plan, source)
    columns, rows, every = plan.stored_ffn_axes or None, plan.stored_embed_axes or None, plan.all_axes or None
    found: dict[str, Parameter] = {}

    def matrix(
        name: str,
        shape: tuple[int, ...],
        fill: Fill,
        *,
        spec: P,
        scale_spec: P,
        contracted: tuple[int, ...],
        merged: int | None = None,
    ) -> None:
        """``merged`` is the axis of ``shape`` that is one dimension with the next, and ``spec`` that of the result."""
        stored = shape if merged is None else (*shape[:merged], shape[merged] * shape[merged + 1], *shape[merged + 2 :])
        if plan.weight_dtype not in LARGEST:
            found[name] = Parameter(stored, plan.weight_dtype, spec, _merged(shape, merged, fill))
            return
        scale = _scale(shape, contracted, fill, LARGEST[plan.weight_dtype])
        kept = tuple(size for axis, size in enumerate(shape) if axis not in contracted)
        whole_numbers = plan.weight_dtype.startswith("int")
        quantised = _merged(shape, merged, _quantised(contracted, fill, scale, whole_numbers))
        found[name] = Parameter(stored, plan.weight_dtype, spec, quantised)
        found[f"{name}_scale"] = Parameter(kept, "float32", scale_spec, scale)

    def vectors(name: str, fill_layer: Callable[[int, Index], Floats], shape: tuple[int, ...], spec: P) -> None:
        found[name] = Parameter((model.num_layers, *shape), "float32", spec, _stacked(fill_layer))

    def canonical(name: str) -> Fill:
        return lambda index: values(fusion.canonical[name], source, index)

    table = (plan.vocab, model.d_model)
    matrix(
        "embedding",
        table,
        _padded(canonical("embedding"), model.vocab_size),
        spec=P(columns, rows),
        scale_spec=P(),
        contracted=(1,),
    )
    if not model.tied_embedding:

        def head(index: Index) -> Floats:
            return values(fusion.canonical["lm_head"], source, (index[1], index[0])).T

        matrix(
            "lm_head", table, _padded(head, model.vocab_size), spec=P(columns, rows), scale_spec=P(), contracted=(1,)
        )
    if model.lm_head_bias:
        fill = _padded(canonical("lm_head_bias"), model.vocab_size)
        found["lm_head_bias"] = Parameter((plan.vocab,), "float32", P(), fill)
    if model.position == "learned":
        found["positions"] = Parameter(
            (model.max_positions, model.d_model), float_dtype(plan), P(), canonical("positions")
        )
    for name, ins in input_parts(plan).items():
        in_width = sum(width for _, width in ins)

        def fill_in(layer: int, index: Index, parts: list[tuple[str, int]] = ins) -> Floats:
            return _folded(plan, parts, fusion.inputs(parts, layer, index[0], index[1]))[:, :, index[2]]

        def fill_in_bias(layer: int, index: Index, parts: list[tuple[str, int]] = ins) -> Floats:
            return _folded(plan, parts, fusion.input_bias(parts, layer, index[0]))[:, index[1]]

        shape = (model.num_layers, model.d_model, plan.chips, in_width)
        matrix(
            f"layer.{name}.in",
            shape,
            _stacked(fill_in),
            spec=P(None, rows, columns),
            scale_spec=P(None, every, None),
            contracted=(1,),
            merged=2,
        )
        if any(f"layers.0.{each}_bias" in fusion.canonical for each, _ in ins):
            vectors(f"layer.{name}.in_bias", fill_in_bias, (plan.chips, in_width), P(None, every, None))
    for name, outs in output_parts(plan).items():
        out_width = sum(width for _, width in outs)

        def fill_out(layer: int, index: Index, parts: list[tuple[str, int]] = outs) -> Floats:
            return fusion.outputs(parts, layer, index[0], index[2])[:, index[1]]

        def fill_out_bias(layer: int, index: Index, parts: list[tuple[str, int]] = outs) -> Floats:
            names = [f"layers.{layer}.{each}_bias" for each, _ in parts]
            biases = [values(fusion.canonical[each], source, index) for each in names if each in fusion.canonical]
            both: Floats = np.sum(biases, axis=0, dtype=np.float32)
            return both

        shape = (model.num_layers, plan.chips, out_width, model.d_model)
        matrix(
            f"layer.{name}.out",
            shape,
            _stacked(fill_out),
            spec=P(None, columns, rows),
            scale_spec=P(),
            contracted=(1, 2),
            merged=1,
        )
        if any(f"layers.0.{each}_bias" in fusion.canonical for each, _ in outs):
            vectors(f"layer.{name}.out_bias", fill_out_bias, (model.d_model,), P())
    for norm in ("attn_norm.scale", "attn_norm.bias", "ffn_norm.scale", "ffn_norm.bias"):
        if f"layers.0.{norm}" in fusion.canonical:

            def fill_norm(layer: int, index: Index, norm: str = norm) -> Floats:
                return values(fusion.canonical[f"layers.{layer}.{norm}"], source, index)

            vectors(f"layer.{norm}", fill_norm, (model.d_model,), P())
    for norm in ("final_norm.scale", "final_norm.bias"):
        if norm in fusion.canonical:
            found[norm] = Parameter((model.d_model,), "float32", P(), canonical(norm))
    return found


def _folded(plan: Plan, parts: list[tuple[str, int]], columns: Floats) -> Floats:
    """Input columns […, width] with the scale of attention's scores in those of q, and so in their scales."""
    if parts[0][0] == "q":
        columns[..., : plan.q_width] *= np.float32(query_factor(plan.model.head_dim))
    return columns


def _stacked(fill_layer: Callable[[int, Index], Floats]) -> Fill:
    """Layers stacked along a first axis."""
    return lambda index: np.stack([fill_layer(each, index[1:]) for each in range(index[0].start, index[0].stop)])


def _merged(shape: tuple[int, ...], axis: int | None, fill: Fill) -> Fill:
    """Values of an array of which ``axis`` and the next are one dimension, asked for in whole entries of ``axis``."""
    if axis is None:
        return fill
    width = shape[axis + 1]

    def filled(index: Index) -> NDArray[Any]:
        entries = slice(index[axis].start // width, index[axis].stop // width)
        block = fill((*index[:axis], entries, slice(0, width), *index[axis + 1 :]))
        return block.reshape(tuple(each.stop - each.start for each in index))

    return filled


def _padded(fill: Fill, real: int) -> Fill:
    """Zeros beyond ``real`` along the first axis."""

    def filled(index: Index) -> Floats:
        start, stop = index[0].start, min(index[0].stop, real)
        shape = [each.stop - each.start for each in index]
        block = np.zeros(shape, np.float32)
        if start < stop:
            block[: stop - start] = fill((slice(start, stop), *index[1:]))
        return block

    return filled


def _scale(shape: tuple[int, ...], contracted: tuple[int, ...], fill: Fill, most: float) -> Fill:
    """Scale of each output channel: max|column| / most, and 1 for a column of zeros. One first-axis entry at a time."""
    known: dict[tuple[tuple[int, int], ...], Floats] = {}

    def scale(index: Index) -> Floats:
        key = tuple((each.start, each.stop) for each in index)
        if key not in known:
            known.clear()
            kept = iter(index)
            whole = [slice(0, size) if axis in contracted else next(kept) for axis, size in enumerate(shape)]
            blocks = []
            for start in range(whole[0].start, whole[0].stop, step := _rows_at_once(shape)):
                first = slice(start, min(start + step, whole[0].stop))
                blocks.append(np.abs(fill((first, *whole[1:]))).max(axis=contracted))
            largest = np.concatenate(blocks)
            known[key] = np.where(largest > 0, largest / np.float32(most), np.float32(1))
        return known[key]

    return scale


def _rows_at_once(shape: tuple[int, ...]) -> int:
    """Entries of the first axis that make about 2²⁴ values."""
    return max(1, (1 << 24) // int(np.prod(shape[1:])))


def _quantised(contracted: tuple[int, ...], fill: Fill, scale: Fill, whole_numbers: bool) -> Fill:
    def quantised(index: Index) -> NDArray[Any]:
        kept = tuple(each for axis, each in enumerate(index) if axis not in contracted)
        scaled: NDArray[Any] = fill(index) / np.expand_dims(scale(kept), contracted)
        return np.round(scaled) if whole_numbers else scaled

    return quantised
