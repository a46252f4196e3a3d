"""Which mesh axes split which dimension: a layout on one mesh for one batch.

Only axes of more than one chip are named: nothing is split or sent along the others.
"""

import itertools
import math
from dataclasses import dataclass

from engines.core.layout import BATCH_AXES, Layout, attention_batch_axes, axes_size
from engines.core.slice import MeshShape

Axes = tuple[str, ...]
"""Mesh axes by name, slowest first."""


@dataclass(frozen=True, slots=True)
class MeshAxes:
    """The axes of every split dimension, for ``layout`` with attention over ``attn_sharding``.

    ``kv_heads`` are the heads of the cache, which split it before positions do: 1 of latent vectors.
    """

    layout: Layout
    mesh_shape: MeshShape
    attn_sharding: str
    batch_size: int
    whole_residual: bool = False
    kv_heads: int = 1

    def size(self, axes: Axes) -> int:
        """Number of shards along ``axes``."""
        return axes_size("".join(axes), self.mesh_shape)

    @property
    def chips(self) -> int:
        """n = X·Y·Z."""
        return math.prod(self.mesh_shape)

    def nontrivial(self, axes: str) -> Axes:
        """Those of ``axes`` that have more than one chip."""
        return tuple(axis for axis in axes if self.size((axis,)) > 1)

    @property
    def all(self) -> Axes:
        """Every axis, z slowest: how a dimension with one chunk per chip is split."""
        return self.nontrivial("zyx")

    @property
    def stored_embed(self) -> Axes:
        """Axes that split E of the weights in memory."""
        return self.nontrivial(self.layout.stored_embed)

    @property
    def stored_ffn(self) -> Axes:
        """Axes that split the columns of the weights in memory."""
        return self.nontrivial(self.layout.stored_ffn)

    @property
    def batch(self) -> Axes:
        """Axes over which weights are gathered and the batch is split; x slowest."""
        return self.nontrivial(self.layout.gathered)

    @property
    def embed(self) -> Axes:
        """Axes that split E of the weights in use."""
        return self.nontrivial(self.layout.embed)

    @property
    def ffn(self) -> Axes:
        """Axes that split the columns of the weights in use; z slowest."""
        return self.nontrivial(self.layout.ffn)

    @property
    def gathered(self) -> tuple[Axes, Axes]:
        """Axes over which weights are gathered: (those along E, those along columns)."""
        rows = tuple(axis for axis in self.stored_embed if axis not in self.embed)
        return rows, tuple(axis for axis in self.stored_ffn if axis not in self.ffn)

    @property
    def column(self) -> Axes:
        """Axes that split heads and F of the activations; z slowest."""
        return self.ffn + self.embed

    @property
    def vector(self) -> tuple[Axes, Axes]:
        """How a vector in chunks over ``all`` becomes one over ``column``: gathered over some axes, then cut over some.

        Axes that both name first stay as they are. A layout that gathers the axes that vary fastest cuts over none.
        """
        pairs = zip(self.all, self.column, strict=False)
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        return self.all[same:], self.column[same:]

    @property
    def residual(self) -> Axes:
        """Axes that split E of the residual stream: those of the weights first."""
        return self.embed + self.scattered

    @property
    def scattered(self) -> Axes:
        """Axes of F over which the residual stream is split as well; () where it is whole on each of their chips."""
        return () if self.whole_residual else self.ffn

    @property
    def summed(self) -> Axes:
        """Axes of F over which an all-reduce, not a reduce-scatter, sums a projection's result."""
        return self.ffn if self.whole_residual else ()

    @property
    def attention(self) -> Axes:
        """Axes of ``column`` over which attention splits the batch as well; x slowest, () where it splits heads."""
        if self.attn_sharding != "batch" or not self.column:
            return ()
        if not self.batch:
            found = attention_batch_axes(self.batch_size, self.mesh_shape)
            return () if found is None else self.nontrivial(found)
        local = self.batch_size // self.size(self.batch)
        for names in BATCH_AXES:
            axes = tuple(axis for axis in self.nontrivial(names) if axis in self.column)
            if axes and local % self.size(axes) == 0:
                return axes
        return ()

    @property
    def positions(self) -> Axes:
        """Axes of ``column`` over which attention splits the positions of a sequence; z slowest, () where it does not.

        Of the axes, as many split heads as leave every chip a whole key/value head; the positions get the others.
        """
        if self.attn_sharding != "sequence":
            return ()
        sets = (each for count in range(len(self.column) + 1) for each in itertools.combinations(self.column, count))
        heads = max((each for each in sets if self.kv_heads % self.size(each) == 0), key=self.size)
        return tuple(axis for axis in self.column if axis not in heads)

    @property
    def moved(self) -> Axes:
        """Axes of ``column`` over which attention exchanges columns for sequences or positions."""
        return self.attention + self.positions

    @property
    def sequence(self) -> Axes:
        """Axes that split the batch within attention; x slowest."""
        return self.batch + self.attention

    @property
    def head(self) -> Axes:
        """Axes of ``column`` over which attention splits heads; z slowest."""
        return tuple(axis for axis in self.column if axis not in self.moved)


@dataclass(frozen=True, slots=True)
class PlannedAxes(MeshAxes):
    """Axes of a plan whose operators have shardings of their own: ``told`` are attention's [sequences, heads].

    The layout's other axes say what is fused and padded, and split nothing.
    """

    told: tuple[str, ...] = ("", "")

    @property
    def sequence(self) -> Axes:
        """Axes that split the batch within attention."""
        return tuple(self.told[0])

    @property
    def head(self) -> Axes:
        """Axes over which attention splits heads; z slowest."""
        return tuple(self.told[1])
