"""The description of every array of a plan's parameters, by the tables of :mod:`params.parameters`."""

import math
from typing import Any

import numpy as np
from jax.sharding import PartitionSpec as P

from engines.core.dtypes import LARGEST
from engines.transformer.params.described import Described, with_flat_vectors
from engines.transformer.params.fill import (
    Fill,
    Groups,
    Index,
    channel_scale,
    merged,
    padded,
    quantized,
    stacked,
)
from engines.transformer.params.fusion import Fusion, input_parts, output_parts
from engines.transformer.params.grouped import Grouped, steps
from engines.transformer.params.quantize import float_dtype, stored_dtype
from engines.transformer.params.tree import (
    Latent,
    LayerParameters,
    Matrix,
    Norm,
    Parameters,
    Parts,
    Projection,
    map_matrices,
)
from engines.transformer.partition.plan import Plan
from engines.weights.random import Floats, Source, values


def query_factor(head_dim: int) -> float:
    """log2(e)/√dim: with queries scaled by it, the softmax numerator is 2^score.

    It is folded into the columns and biases of q at load; rotary embeddings do not mix them with other columns.
    """
    return math.log2(math.e) / math.sqrt(head_dim)


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
        """A stack of one for each layer, the vectors of its matrices in one dimension."""
        one_each = [_Describer(self.plan, self.source, range(each, each + 1)) for each in self.numbers]
        return tuple(map_matrices(with_flat_vectors, each._layers()) for each in one_each)

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
        return self._matrix(shape, fill, dtype=dtype, spec=spec, scale_spec=P(), contracted=(1,), bias=bias)

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
            latent=self._latent() if self.model.attention.is_latent else None,
            single=found,
        )

    def _latent(self) -> Latent:
        """Latent vectors are whole on every chip: only the columns of the heads are split."""
        model, padded = self.model, self.plan.padded
        per_chunk = padded.heads // self.plan.chips

        def heads_of(name: str, latent: int, dim: int) -> Matrix:
            parts, width = ((name, per_chunk * dim),), per_chunk * dim

            def fill(layer: int, index: Index) -> Floats:
                return self._folded(parts, self.fusion.inputs(parts, layer, index[0], index[1]))[:, :, index[2]]

            return self._projection(
                (len(self.numbers), latent, self.plan.chips, width),
                stacked(self.numbers, fill),
                rows=1,
                spec=P(None, None, self.every),
                scale_spec=P(None, self.every, None),
                contracted=(1,),
                merged_axis=2,
                bias=None,
                parts=parts,
            )

        def scale(name: str, latent: int) -> Described:
            def fill(layer: int, index: Index) -> Floats:
                return values(self.fusion.canonical[f"layers.{layer}.{name}_norm.scale"], self.source, index)

            return self._vectors(fill, (latent,), P())

        queries, keys = model.q_latent_dim, model.kv_latent_dim
        assert keys is not None
        return Latent(
            k_b=heads_of("k_b", keys, model.head_dim - model.rotated_dim),
            v_b=heads_of("v_b", keys, model.attention.value_dim),
            kv_norm=scale("kv_a", keys),
            q_b=None if queries is None else heads_of("q_b", queries, model.head_dim),
            q_norm=None if queries is None else scale("q_a", queries),
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

    def _matrix(
        self,
        shape: tuple[int, ...],
        fill: Fill,
        *,
        dtype: str,
        spec: P,
        scale_spec: P,
        contracted: tuple[int, ...],
        merged_axis: int | None = None,
        bias: Described | None = None,
        parts: Parts = (),
    ) -> Matrix:
        """``merged_axis`` of ``shape`` and the next are merged into one dimension; ``spec`` is that of the result."""
        axis = merged_axis
        merged_shape = shape if axis is None else (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
        if dtype not in LARGEST:
            return Matrix(Described(merged_shape, dtype, spec, merged(shape, axis, fill)), bias, parts=parts)
        scale = channel_scale(shape, contracted, fill, LARGEST[dtype])
        scale_shape = tuple(size for each, size in enumerate(shape) if each not in contracted)
        rounded = merged(shape, axis, quantized(contracted, fill, scale, dtype.startswith("int")))
        return Matrix(
            Described(merged_shape, dtype, spec, rounded, at_once=True),
            bias,
            Described(scale_shape, "float32", scale_spec, scale),
            parts,
        )

    def _projection(self, shape: tuple[int, ...], fill: Fill, *, spec: P, rows: int, **rest: Any) -> Matrix:
        """:meth:`_matrix` of a layer in the weights' format, in groups along the axis ``rows`` where it has them."""
        plan, axis, size = self.plan, rest["merged_axis"], self.plan.weight_group_size
        if size is None:
            return self._matrix(shape, fill, dtype=plan.weight_dtype, spec=spec, **rest)
        sixteen = "float16" if plan.act_dtype == "float16" else "bfloat16"
        groups = Groups(fill, rows, size, steps(plan.weight_dtype), stored_dtype(sixteen))
        fewer = (*shape[:rows], shape[rows] // size, *shape[rows + 1 :])
        blocks = (*fewer[: rows + 1], size, *fewer[rows + 1 :])

        def part(whole: tuple[int, ...], dtype: str, made: Fill) -> Described:
            at = axis + 1 if whole is blocks and rows < axis else axis
            flat = (*whole[:at], whole[at] * whole[at + 1], *whole[at + 2 :])
            cut = P(*spec[:2], None, *spec[2:]) if whole is blocks else spec
            return Described(flat, dtype, cut, merged(whole, at, made))

        values = Grouped(
            part(blocks, plan.weight_dtype, groups.values),
            part(fewer, sixteen, groups.scales),
            part(fewer, plan.weight_dtype, groups.zeros),
        )
        return Matrix(values, rest["bias"], parts=rest["parts"])

    def _folded(self, parts: Parts, columns: Floats) -> Floats:
        """Input columns […, width] with those of q multiplied by :func:`query_factor`."""
        if parts[0][0] in ("q", "q_b"):
            columns[..., : self.plan.padded.q_width] *= np.float32(query_factor(self.model.head_dim))
        return columns
