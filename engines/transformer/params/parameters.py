"""A plan's parameters: their shapes, their shardings on a mesh, and their arrays, made from a source of values.

Describing them needs no device; each device generates or reads only its own part. A projection's tensors are fused into
one matrix, chip by chip (:mod:`params.fusion`), so that it takes one matmul and one collective (Pope et al. 2022,
sections 3.4 and 3.5).

==========================  ===========================  =============================================
matrix                      values                       what
==========================  ===========================  =============================================
``embedding``, ``lm_head``  [vocab, E]                   split like a matrix with the vocabulary as columns
a projection's ``inputs``   [layers, E, chips · width]   columns of every chunk: q | k | v, gate | up, one, or all
a projection's ``outputs``  [layers, chips · width, E]   rows of every chunk: o, wo, or both
==========================  ===========================  =============================================

With ``weight_group_size`` a projection's values are in groups of rows (:mod:`params.grouped`), whose scales and zero
points are cut as the values are.

Chunks and their widths are one dimension of a matrix: a TPU stores an array in tiles of its last two dimensions, and
merging dimensions later would copy the weights in every layer. Biases of inputs are [layers, chips, width]; all other
vectors are replicated.
"""

import math
from typing import Any

import jax
import numpy as np
from jax.experimental.layout import Format
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from numpy.typing import NDArray

from engines.transformer.params.described import Described, grouped_of, matrix_of
from engines.transformer.params.fill import Fill, Index, padded, rows_at_once, stacked
from engines.transformer.params.fusion import Fusion, input_parts, output_parts
from engines.transformer.params.memory_layout import array_format, relayout
from engines.transformer.params.quantize import float_dtype, stored_dtype
from engines.transformer.params.tree import LayerParameters, Matrix, Norm, Parameters, Parts, Projection
from engines.transformer.partition.plan import Plan
from engines.weights.random import Floats, Source, values


def query_factor(head_dim: int) -> float:
    """log2(e)/√dim: with queries scaled by it, the softmax numerator is 2^score.

    It is folded into the columns and biases of q at load; rotary embeddings do not mix them with other columns.
    """
    return math.log2(math.e) / math.sqrt(head_dim)


def parameter_specs(plan: Plan) -> Parameters:
    """The PartitionSpec of every array."""
    specs: Parameters = jax.tree.map(lambda each: each.spec, described(plan))
    return specs


def abstract_parameters(plan: Plan, mesh: Mesh) -> Parameters:
    """Shapes, dtypes and shardings without values, for any mesh, whether its devices are present or not."""

    def abstract(each: Described) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(each.shape, stored_dtype(each.dtype), sharding=placement(plan, mesh, each))

    shapes: Parameters = jax.tree.map(abstract, described(plan))
    return shapes


def make_parameters(plan: Plan, mesh: Mesh, source: Source) -> Parameters:
    """The arrays on the mesh's devices. Each device's part is made from its own slice of the canonical tensors."""

    def made(each: Described) -> jax.Array:
        # Computing a quantized matrix also computes its scales, which are kept until they are requested themselves.
        step = each.shape[0] if each.at_once else rows_at_once(each.shape)

        def part(index: Any) -> NDArray[Any]:
            first, *rest = (slice(*at.indices(size)[:2]) for at, size in zip(index, each.shape, strict=True))
            block = np.empty([at.stop - at.start for at in (first, *rest)], stored_dtype(each.dtype))
            # Values are float32 up to here: a block of rows at a time, so that the host never holds a whole float32
            # matrix.
            for start in range(first.start, first.stop, step):
                stop = min(start + step, first.stop)
                block[start - first.start : stop - first.start] = each.fill((slice(start, stop), *rest))
            return block

        array = jax.make_array_from_callback(each.shape, NamedSharding(mesh, each.spec), part)
        return relayout(array, placement(plan, mesh, each))

    parameters: Parameters = jax.tree.map(made, described(plan, source))
    return parameters


def placement(plan: Plan, mesh: Mesh, each: Described) -> Format | NamedSharding:
    """Sharding and memory layout of an array: row-major, as the decode loop reads it.

    Gathered matrices are split into tensors at columns that are not a multiple of a tile: the device chooses their
    layout.
    """
    if plan.axes.batch:
        return NamedSharding(mesh, each.spec)
    return array_format(mesh, each.spec, range(len(each.shape)))


def described(plan: Plan, source: Source = 0) -> Parameters:
    """The description of every array; values are computed only when requested."""
    return _Describer(plan, source).parameters()


class _Describer:
    """``numbers`` are the layers that are stacked, by default all."""

    def __init__(self, plan: Plan, source: Source, numbers: range | None = None) -> None:
        self.numbers = range(plan.model.num_layers) if numbers is None else numbers
        self.plan, self.source, self.model = plan, source, plan.model
        self.fusion = Fusion(plan, source)
        axes = plan.axes
        self.columns, self.rows, self.every = axes.stored_ffn or None, axes.stored_embed or None, axes.all or None

    def parameters(self) -> Parameters:
        model = self.model
        positions = (model.max_positions, model.d_model)
        learned = model.position == "learned"
        return Parameters(
            embedding=self._table(self._canonical("embedding")),
            final_norm=self._norm("final_norm"),
            layers=self._unrolled() if self.plan.unrolled else self._layers(),
            lm_head=self._lm_head(),
            positions=Described(positions, float_dtype(self.plan), P(), self._canonical("positions"))
            if learned
            else None,
        )

    def _unrolled(self) -> tuple[LayerParameters, ...]:
        """A stack of one for each layer."""
        one_each = [_Describer(self.plan, self.source, range(each, each + 1)) for each in self.numbers]
        return tuple(each._layers() for each in one_each)

    def _canonical(self, name: str) -> Fill:
        return lambda index: values(self.fusion.canonical[name], self.source, index)

    def _lm_head(self) -> Matrix | None:
        """Values where it is not tied to the embedding, a bias where it has one."""
        vocab_size, bias = self.model.vocab_size, None
        if self.model.lm_head_bias:
            fill = padded(self._canonical("lm_head_bias"), vocab_size)
            bias = Described((self.plan.padded.vocab,), "float32", P(), fill)
        if self.model.tied_embedding:
            return None if bias is None else Matrix(None, bias)

        def head(index: Index) -> Floats:
            return values(self.fusion.canonical["lm_head"], self.source, (index[1], index[0])).T

        return self._table(head, bias)

    def _table(self, fill: Fill, bias: Described | None = None) -> Matrix:
        """[vocab, E], zeros beyond the vocabulary's real size."""
        shape = (self.plan.padded.vocab, self.model.d_model)
        fill = padded(fill, self.model.vocab_size)
        spec, dtype = P(self.columns, self.rows), self.plan.head_format
        return matrix_of(shape, fill, dtype=dtype, spec=spec, scale_spec=P(), contracted=(1,), bias=bias)

    def _layers(self) -> LayerParameters:
        inputs = {name: self._inputs(parts) for name, parts in input_parts(self.plan).items()}
        outputs = {name: self._outputs(parts) for name, parts in output_parts(self.plan).items()}
        found = {name: Projection(inputs.get(name), outputs.get(name)) for name in inputs.keys() | outputs.keys()}
        return LayerParameters(
            attn_norm=self._norm("attn_norm", layered=True),
            ffn_norm=self._norm("ffn_norm", layered=True) if self.model.norms_per_layer == 2 else None,
            attn=found.pop("attn", None),
            ffn=found.pop("ffn", None),
            fused=found.pop("fused", None),
            single=found,
        )

    def _inputs(self, parts: Parts) -> Matrix:
        plan, fusion = self.plan, self.fusion
        width = sum(width for _, width in parts)

        def fill(layer: int, index: Index) -> Floats:
            return self._folded(parts, fusion.inputs(parts, layer, index[0], index[1]))[:, :, index[2]]

        def fill_bias(layer: int, index: Index) -> Floats:
            return self._folded(parts, fusion.input_bias(parts, layer, index[0]))[:, index[1]]

        has_bias = any(f"layers.0.{name}_bias" in fusion.canonical for name, _ in parts)
        bias = self._vectors(fill_bias, (plan.chips, width), P(None, self.every, None)) if has_bias else None
        return self._projection(
            (len(self.numbers), self.model.d_model, plan.chips, width),
            stacked(self.numbers, fill),
            rows=1,
            spec=P(None, self.rows, self.columns),
            scale_spec=P(None, self.every, None),
            contracted=(1,),
            merged_axis=2,
            bias=bias,
            parts=parts,
        )

    def _outputs(self, parts: Parts) -> Matrix:
        fusion = self.fusion
        width = sum(width for _, width in parts)

        def fill(layer: int, index: Index) -> Floats:
            return fusion.outputs(parts, layer, index[0], index[2])[:, index[1]]

        def fill_bias(layer: int, index: Index) -> Floats:
            names = [f"layers.{layer}.{each}_bias" for each, _ in parts]
            biases = [values(fusion.canonical[each], self.source, index) for each in names if each in fusion.canonical]
            both: Floats = np.sum(biases, axis=0, dtype=np.float32)
            return both

        has_bias = any(f"layers.0.{name}_bias" in fusion.canonical for name, _ in parts)
        return self._projection(
            (len(self.numbers), self.plan.chips, width, self.model.d_model),
            stacked(self.numbers, fill),
            rows=2,
            spec=P(None, self.columns, self.rows),
            scale_spec=P(),
            contracted=(1, 2),
            merged_axis=1,
            bias=self._vectors(fill_bias, (self.model.d_model,), P()) if has_bias else None,
            parts=parts,
        )

    def _norm(self, name: str, *, layered: bool = False) -> Norm:
        def vector(which: str) -> Described | None:
            if not self.model.norm_bias and which == "bias":
                return None
            if layered:

                def fill(layer: int, index: Index) -> Floats:
                    return values(self.fusion.canonical[f"layers.{layer}.{name}.{which}"], self.source, index)

                return self._vectors(fill, (self.model.d_model,), P())
            return Described((self.model.d_model,), "float32", P(), self._canonical(f"{name}.{which}"))

        return Norm(vector("scale"), vector("bias"))

    def _vectors(self, fill_layer: Any, shape: tuple[int, ...], spec: P) -> Described:
        return Described((len(self.numbers), *shape), "float32", spec, stacked(self.numbers, fill_layer))

    def _projection(self, shape: tuple[int, ...], fill: Fill, *, spec: P, rows: int, **rest: Any) -> Matrix:
        """A layer's matrix in the weights' format, in groups along the axis ``rows`` where it has them."""
        plan, size = self.plan, self.plan.weight_group_size
        if size is None:
            return matrix_of(shape, fill, dtype=plan.weight_dtype, spec=spec, **rest)
        sixteen = "float16" if plan.act_dtype == "float16" else "bfloat16"
        kinds = (plan.weight_dtype, sixteen)
        values = grouped_of(shape, fill, rows, size, kinds=kinds, spec=spec, merged_axis=rest["merged_axis"])
        return Matrix(values, rest["bias"], parts=rest["parts"])

    def _folded(self, parts: Parts, columns: Floats) -> Floats:
        """Input columns […, width] with those of q multiplied by :func:`query_factor`."""
        if parts[0][0] == "q":
            columns[..., : self.plan.padded.q_width] *= np.float32(query_factor(self.model.head_dim))
        return columns
