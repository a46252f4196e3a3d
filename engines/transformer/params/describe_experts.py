"""The description of a stack of layers' experts: router, matrices of every expert, the shared expert's projection.

An expert's matrices are cut and fused as a layer's are, in chunks of one chip of those that share the expert.
"""

from collections.abc import Callable

import numpy as np
from jax.sharding import PartitionSpec as P

from engines.core.experts import Experts
from engines.transformer.params.described import Described
from engines.transformer.params.describer import Describer
from engines.transformer.params.fill import stacked
from engines.transformer.params.fusion import Fusion, shared_parts
from engines.transformer.params.quantize import float_dtype
from engines.transformer.params.tree import ExpertParameters, Matrix, Parts, Projection
from engines.transformer.partition.plan import Plan
from engines.weights.formats import Index
from engines.weights.random import Floats, Source, Tensor, values

Describe = Callable[[Parts], Matrix]


def describe_experts(
    plan: Plan, source: Source, fusion: Fusion, numbers: range, inputs: Describe, outputs: Describe
) -> ExpertParameters:
    """The arrays of layers ``numbers``; ``inputs`` and ``outputs`` describe the shared expert's matrices."""
    return _Experts(plan, source, fusion, numbers).parameters(inputs, outputs)


class _Experts(Describer):
    def __init__(self, plan: Plan, source: Source, fusion: Fusion, numbers: range) -> None:
        super().__init__(plan, source, fusion)
        assert self.model.experts is not None
        self.numbers, self.axes = numbers, plan.experts
        self.experts: Experts = self.model.experts
        self.cut = self.axes.experts or None
        self.embed, self.ffn = self.axes.stored_embed or None, self.axes.stored_ffn or None

    def parameters(self, inputs: Describe, outputs: Describe) -> ExpertParameters:
        keys, shared = self.experts.keys, shared_parts(self.plan)
        return ExpertParameters(
            correction=self._vector("router_correction") if keys.router_correction else None,
            inputs=self._inputs(),
            outputs=self._outputs(),
            router=self._router(),
            shared=None if shared is None else Projection(inputs(shared[0]), outputs(shared[1])),
            shared_gate=self._vector("shared_gate", self.model.d_model) if keys.shared_expert_gate else None,
        )

    def _tensor(self, layer: int, name: str) -> Tensor:
        return self.fusion.canonical[f"layers.{layer}.{name}"]

    def _vector(self, name: str, size: int | None = None) -> Described:
        """[layers, N], or a tensor of another size as one vector."""

        def fill(layer: int, index: Index) -> Floats:
            tensor = self._tensor(layer, name)
            return values(tensor.reshaped(tensor.shape[0]), self.source, index)

        shape = (len(self.numbers), size or self.experts.count)
        return Described(shape, "float32", P(), stacked(self.numbers, fill))

    def _router(self) -> Matrix:
        """[layers, E, N], whole on every chip, in the format of weights that are not quantized."""

        def fill(layer: int, index: Index) -> Floats:
            return values(self._tensor(layer, "router"), self.source, index)

        shape = (len(self.numbers), self.model.d_model, self.experts.count)
        bias = self._vector("router_bias") if self.experts.keys.router_bias else None
        return Matrix(Described(shape, float_dtype(self.plan), P(), stacked(self.numbers, fill)), bias)

    def _inputs(self) -> Matrix:
        """[layers, N, E, chunks · width]: the columns of every chunk, gate | up or the one input."""
        names, chunks = self.experts.expert.inputs, self.axes.chunks
        width = self.experts.expert.d_ff // chunks
        whole = len(names) * width

        def fill(layer: int, index: Index) -> Floats:
            experts, rows, at, part = index
            columns = slice(at.start * width, at.stop * width)
            strips = [
                values(self._tensor(layer, f"experts.{name}"), self.source, (experts, rows, columns)) for name in names
            ]
            apart = [each.reshape(*each.shape[:2], -1, width) for each in strips]
            return np.concatenate(apart, axis=-1)[..., part]

        def fill_bias(layer: int, index: Index) -> Floats:
            experts, columns = index
            at = slice(columns.start // whole * width, columns.stop // whole * width)
            strips = [values(self._tensor(layer, f"experts.{name}_bias"), self.source, (experts, at)) for name in names]
            return np.concatenate([each.reshape(len(each), -1, width) for each in strips], -1).reshape(
                experts.stop - experts.start, -1
            )

        shape = (len(self.numbers), self.experts.count, self.model.d_model, chunks, whole)
        return self.projection(
            shape,
            stacked(self.numbers, fill),
            rows=2,
            spec=P(None, self.cut, self.embed, self.ffn),
            scale_spec=P(None, self.cut, self.ffn, None),
            contracted=(2,),
            merged_axis=3,
            bias=self._bias(fill_bias, chunks * whole, self.ffn),
            parts=(),
        )

    def _outputs(self) -> Matrix:
        """[layers, N, chunks · width, E]."""
        name, chunks = f"experts.{self.experts.expert.output}", self.axes.chunks
        width = self.experts.expert.d_ff // chunks

        def fill(layer: int, index: Index) -> Floats:
            experts, at, part, columns = index
            rows = slice(at.start * width, at.stop * width)
            strip = values(self._tensor(layer, name), self.source, (experts, rows, columns))
            return strip.reshape(len(strip), -1, width, strip.shape[-1])[:, :, part]

        def fill_bias(layer: int, index: Index) -> Floats:
            return values(self._tensor(layer, f"{name}_bias"), self.source, index)

        return self.projection(
            (len(self.numbers), self.experts.count, chunks, width, self.model.d_model),
            stacked(self.numbers, fill),
            rows=3,
            spec=P(None, self.cut, self.ffn, self.embed),
            scale_spec=P(None, self.cut, self.embed),
            contracted=(2, 3),
            merged_axis=2,
            bias=self._bias(fill_bias, self.model.d_model, self.embed),
            parts=(),
        )

    def _bias(self, fill: Callable[[int, Index], Floats], size: int, columns: object) -> Described | None:
        if not self.experts.expert.has_bias:
            return None
        shape = (len(self.numbers), self.experts.count, size)
        return Described(shape, "float32", P(None, self.cut, columns), stacked(self.numbers, fill))
