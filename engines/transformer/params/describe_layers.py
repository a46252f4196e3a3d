"""The description of one stack of layers: its projections, norms and vectors."""

import math
from typing import Any

import numpy as np
from jax.sharding import PartitionSpec as P

from engines.transformer.params.describe_experts import describe_experts
from engines.transformer.params.described import Described, with_flat_vectors
from engines.transformer.params.describer import Describer
from engines.transformer.params.fill import stacked
from engines.transformer.params.fusion import Fusion, input_parts, output_parts
from engines.transformer.params.tree import (
    Latent,
    LayerParameters,
    Matrix,
    Norm,
    Parts,
    Projection,
    map_matrices,
)
from engines.transformer.partition.padding import real_heads
from engines.transformer.partition.plan import Plan
from engines.transformer.partition.stacks import Stack
from engines.weights.formats import Index
from engines.weights.random import Floats, Source, norm_names, values


def query_factor(head_dim: int, scale: float | None = None) -> float:
    """log2(e) times what scores are multiplied by, by default 1/√dim: the softmax numerator is then 2^score.

    It is folded into the columns and biases of q at load, or into the scale of a norm of queries; rotary embeddings do
    not mix them with other columns.
    """
    return math.log2(math.e) / math.sqrt(head_dim) if scale is None else math.log2(math.e) * scale


def describe_layers(plan: Plan, source: Source, fusion: Fusion, stack: Stack) -> LayerParameters:
    """The arrays of a stack; where the plan unrolls layers, the vectors of its matrices in one dimension."""
    found = _Layers(plan, source, fusion, stack).parameters()
    return map_matrices(with_flat_vectors, found) if plan.unrolled else found


class _Layers(Describer):
    def __init__(self, plan: Plan, source: Source, fusion: Fusion, stack: Stack) -> None:
        super().__init__(plan, source, fusion)
        self.numbers, self.kind = stack.numbers, stack.kind
        # What joins the residual stream is made so much larger: an output matrix, or the norm behind it.
        self.share = np.float32(1 if plan.model.norm_position != "before" else plan.model.residual_scale)

    def parameters(self) -> LayerParameters:
        sparse = self.kind.has_experts
        inputs = {
            name: self._inputs(parts) for name, parts in input_parts(self.plan).items() if not sparse or name == "attn"
        }
        outputs = {
            name: self._outputs(parts)
            for name, parts in output_parts(self.plan).items()
            if not sparse or name == "attn"
        }
        norms = {name: self._norm(name) for name in norm_names(self.model)}
        found = {name: Projection(inputs.get(name), outputs.get(name)) for name in inputs.keys() | outputs.keys()}
        return LayerParameters(
            **norms,
            attn=found.pop("attn", None),
            experts=describe_experts(self.plan, self.source, self.fusion, self.numbers, self._inputs, self._outputs)
            if sparse
            else None,
            ffn=found.pop("ffn", None),
            fused=found.pop("fused", None),
            heads=self._heads(),
            latent=self._latent() if self.model.attention.is_latent else None,
            single=found,
        )

    def _latent(self) -> Latent:
        """Latent vectors are whole on every chip: only the columns of the heads are split."""
        model, per_chunk = self.model, self.plan.padded.heads // self.plan.chips

        def heads_of(name: str, latent: int, dim: int) -> Matrix:
            parts, width = ((name, per_chunk * dim),), per_chunk * dim

            def fill(layer: int, index: Index) -> Floats:
                return self._folded(parts, self.fusion.inputs(parts, layer, index[0], index[1]))[:, :, index[2]]

            return self.projection(
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

        has_bias = self._has_bias(parts)
        bias = self._vectors(fill_bias, (plan.chips, width), P(None, self.every, None)) if has_bias else None
        return self.projection(
            (len(self.numbers), self.model.d_model, plan.chips, width),
            stacked(self.numbers, fill),
            rows=1,
            spec=P(None, *self.stored(parts, "in")),
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
            made: Floats = self.share * fusion.outputs(parts, layer, index[0], index[2])[:, index[1]]
            return made

        def fill_bias(layer: int, index: Index) -> Floats:
            names = [f"layers.{layer}.{each}_bias" for each, _ in parts]
            biases = [values(fusion.canonical[each], self.source, index) for each in names if each in fusion.canonical]
            both: Floats = np.multiply(self.share, np.sum(biases, axis=0, dtype=np.float32), dtype=np.float32)
            return both

        has_bias = self._has_bias(parts)
        return self.projection(
            (len(self.numbers), self.plan.chips, width, self.model.d_model),
            stacked(self.numbers, fill),
            rows=2,
            spec=P(None, *self.stored(parts, "out")),
            scale_spec=P(),
            contracted=(1, 2),
            merged_axis=1,
            bias=self._vectors(fill_bias, (self.model.d_model,), P()) if has_bias else None,
            parts=parts,
        )

    def _has_bias(self, parts: Parts) -> bool:
        return any(f"layers.{self.numbers[0]}.{name}_bias" in self.fusion.canonical for name, _ in parts)

    def _norm(self, name: str) -> Norm:
        after = name.endswith("_post_norm")
        factor = np.float32(self.model.residual_scale if after else 1)

        def vector(which: str) -> Described:
            return self._vectors(self._canonical(f"{name}.{which}", factor), (self.model.d_model,), P())

        return Norm(vector("scale"), vector("bias") if self.model.norm_bias else None)

    def _heads(self) -> dict[str, Described]:
        """Attention's vectors of heads, on every chip."""
        model, padded = self.model, self.plan.padded
        found = {}
        if model.qk_norm:
            factor = np.float32(query_factor(model.head_dim, model.attn_scale))
            for name, scale in (("q_norm", factor), ("k_norm", np.float32(1))):
                fill = self._canonical(f"{name}.scale", scale)
                found[name] = self._vectors(fill, (model.head_dim,), P())
        if model.attention_sinks:
            heads = np.asarray(real_heads(padded))

            def fill_sinks(layer: int, index: Index) -> Floats:
                whole = values(self.fusion.canonical[f"layers.{layer}.sinks"], self.source)
                made: Floats = np.float32(math.log2(math.e)) * whole[heads[index[0]]]
                return made

            found["sinks"] = self._vectors(fill_sinks, (padded.heads,), P())
        return found

    def _canonical(self, name: str, factor: np.float32) -> Any:
        """Fills a vector of each layer with ``factor`` times the canonical one."""

        def fill(layer: int, index: Index) -> Floats:
            made: Floats = factor * values(self.fusion.canonical[f"layers.{layer}.{name}"], self.source, index)
            return made

        return fill

    def _vectors(self, fill_layer: Any, shape: tuple[int, ...], spec: P) -> Described:
        return Described((len(self.numbers), *shape), "float32", spec, stacked(self.numbers, fill_layer))

    def _folded(self, parts: Parts, columns: Floats) -> Floats:
        """Input columns […, width] with those of q multiplied by :func:`query_factor`."""
        if parts[0][0] in ("q", "q_b") and not self.model.qk_norm:
            factor = query_factor(self.model.head_dim, self.model.attn_scale)
            columns[..., : self.plan.padded.q_width] *= np.float32(factor)
        return columns
