"""The description of every array of a plan's parameters, by the tables of :mod:`params.parameters`."""

from dataclasses import replace

import jax
from jax.sharding import PartitionSpec as P

from engines.transformer.params.describe_layers import describe_layers
from engines.transformer.params.described import Described
from engines.transformer.params.describer import Describer
from engines.transformer.params.fill import padded
from engines.transformer.params.quantize import float_dtype
from engines.transformer.params.tree import Matrix, Norm, Parameters
from engines.transformer.partition.constraint import told
from engines.transformer.partition.plan import STAGE, Plan
from engines.weights.formats import Fill, Index
from engines.weights.random import Floats, Source, values


def described(plan: Plan, source: Source = 0) -> Parameters:
    """The description of every array; values are computed only when requested."""
    whole = _Model(plan, source).parameters()
    if plan.stages == 1:
        return whole

    def staged(each: Described) -> Described:
        return replace(each, spec=P(STAGE, *each.spec[1:]))

    return replace(whole, layers=jax.tree.map(staged, whole.layers))


class _Model(Describer):
    """What is not of a layer: tables, the final norm, the output matrix."""

    def parameters(self) -> Parameters:
        model = self.model
        positions = (model.max_positions, model.d_model)
        learned = model.position == "learned"
        return Parameters(
            embedding=self._table(self.canonical("embedding")),
            embedding_norm=self._norm("embedding_norm") if model.embedding_norm else None,
            final_norm=self._norm("final_norm"),
            layers=tuple(describe_layers(self.plan, self.source, self.fusion, each) for each in self.plan.stacks),
            lm_head=self._lm_head(),
            positions=Described(positions, float_dtype(self.plan), P(), self.canonical("positions"))
            if learned
            else None,
        )

    def _lm_head(self) -> Matrix | None:
        """Values where it is not tied to the embedding, a bias where it has one."""
        vocab_size, bias = self.model.vocab_size, None
        if self.model.lm_head_bias:
            fill = padded(self.canonical("lm_head_bias"), vocab_size)
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
        rows, columns = told(self.plan, "table") or (self.rows, self.columns)
        spec, dtype = P(columns or None, rows or None), self.plan.head_format
        return self.matrix(shape, fill, dtype=dtype, spec=spec, scale_spec=P(), contracted=(1,), bias=bias)

    def _norm(self, name: str) -> Norm:
        def vector(which: str) -> Described:
            return Described((self.model.d_model,), "float32", P(), self.canonical(f"{name}.{which}"))

        return Norm(vector("scale"), vector("bias") if self.model.norm_bias else None)
