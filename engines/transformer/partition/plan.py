"""Who holds what: a model, a mesh and a layout, resolved into axes and local sizes before any array exists.

Mesh axes are x, y, z. One family of layouts covers all names: after weights are gathered over ``batch_axes``, a
matrix is [E.embed_axes, F.ffn_axes]. Columns (F, heads) are split with z slowest and x fastest and batches with x
slowest, so that gathering a layout's weights leaves each chip one contiguous block, and ``ws_2d`` and all ``wg_*`` run
on the same stored weights.

===========  ==========  ==========  =========  =======================================
layout       batch_axes  embed_axes  ffn_axes   stored weights
===========  ==========  ==========  =========  =======================================
``ws_1d``                            z y x      [E, F.zyx]
``ws_2d``                x           z y        [E.x, F.zy]
``wg_x``     x                       z y        the same
``wg_xy``    x y                     z          the same
``wg_xyz``   x y z                              the same
===========  ==========  ==========  =========  =======================================
"""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from engines.core.errors import InvalidRequest
from engines.core.layout import BATCH_AXES, GATHERED_AXES, Collectives, Partitioner, attention_batch_axes, axes_size
from engines.core.model import Model
from engines.core.slice import MeshShape
from engines.transformer.options import WHOLE, Reading

Axes = tuple[str, ...]


class Annotation(NamedTuple):
    """How arrays that are seen whole are to be split: as in ``plan``, over ``mesh``."""

    plan: "Plan"
    mesh: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A resolved layout of one model on one mesh, for one batch and cache length.

    ``ffn_layout`` is one of the five names and ``attn_sharding`` heads or batch: no ``auto``. ``cache_len`` is the
    number of positions that the cache holds. ``decodes`` says whether steps follow the prompt. ``pieces`` and
    ``annotation`` are those of :meth:`whole`.
    """

    model: Model
    mesh_shape: MeshShape
    ffn_layout: str
    attn_sharding: str
    batch_size: int
    cache_len: int
    weight_dtype: str = "float32"
    act_dtype: str = "float32"
    kv_dtype: str = "float32"
    collectives: Collectives = "plain"
    partitioner: Partitioner = "manual"
    decodes: bool = True
    reading: Reading = WHOLE
    pieces: int | None = None
    annotation: Annotation | None = None

    def check(self) -> None:
        """Check that the mesh can carry the model in this layout.

        Raises:
            InvalidRequest: a dimension does not split over its axes.
        """
        model, shape = self.model, list(self.mesh_shape)
        for key, size in (("d_model", model.d_model), ("d_ff", model.d_ff)):
            if size % self.chips:
                raise InvalidRequest(
                    f"model.{key}",
                    size,
                    f"does not split over the {self.chips} chips of mesh_shape={shape}",
                    f"use a mesh whose size divides {size}",
                )
        if self.batch_size % self.size(self.batch_axes):
            raise InvalidRequest(
                "batch_size",
                self.batch_size,
                f"does not split over the {self.size(self.batch_axes)} shards of ffn_layout={self.ffn_layout}",
                f"use a multiple of {self.size(self.batch_axes)}, or ffn_layout=ws_2d",
            )
        if self.attn_sharding == "batch" and self.chips > 1 and not self.attention_axes and not self.batch_axes:
            raise InvalidRequest(
                "batch_size",
                self.batch_size,
                f"does not split over any axes of mesh_shape={shape} for attn_sharding=batch",
                "use a multiple of a mesh axis, or attn_sharding=heads",
            )

    def size(self, axes: Axes) -> int:
        """Number of shards along ``axes``."""
        return axes_size("".join(axes), self.mesh_shape)

    @property
    def chips(self) -> int:
        """n = X·Y·Z, the number of chunks into which columns are cut."""
        return self.pieces or math.prod(self.mesh_shape)

    def whole(self, mesh: Any) -> "Plan":
        """The same computation on whole arrays of the same shapes, for a compiler to partition.

        Nothing moves by hand, as on one chip; annotations say where this plan would have each value.
        """
        return replace(
            self,
            mesh_shape=(1, 1, 1),
            ffn_layout="ws_1d",
            attn_sharding="heads",
            pieces=self.chips,
            annotation=Annotation(self, mesh),
        )

    @property
    def sequence_axes(self) -> Axes:
        """Axes that split the batch within attention; x slowest."""
        return self.batch_axes + self.attention_axes

    @property
    def kv_axes(self) -> Axes:
        """Axes that split key/value heads where every one is kept once: none where fewer than the chips share them."""
        return self.head_axes if self.kv_splits_by_head else ()

    def _real(self, axes: str) -> Axes:
        """Axes of more than one chip: nothing is split, nor sent, along the others."""
        return tuple(axis for axis in axes if self.size((axis,)) > 1)

    @property
    def stored_embed_axes(self) -> Axes:
        """Axes that split E of the weights in memory."""
        return () if self.ffn_layout == "ws_1d" else self._real("x")

    @property
    def stored_ffn_axes(self) -> Axes:
        """Axes that split the columns of the weights in memory."""
        return self._real("zyx" if self.ffn_layout == "ws_1d" else "zy")

    @property
    def all_axes(self) -> Axes:
        """Every axis, z slowest: how a dimension of one chunk a chip is split."""
        return self._real("zyx")

    @property
    def batch_axes(self) -> Axes:
        """Axes over which weights are gathered and activations are split by sequences; x slowest."""
        return self._real(GATHERED_AXES[self.ffn_layout])

    @property
    def embed_axes(self) -> Axes:
        """Axes that split E of the weights in use."""
        return tuple(axis for axis in self.stored_embed_axes if axis not in self.batch_axes)

    @property
    def ffn_axes(self) -> Axes:
        """Axes that split the columns of the weights in use; z slowest."""
        return tuple(axis for axis in self.stored_ffn_axes if axis not in self.batch_axes)

    @property
    def gathered_axes(self) -> tuple[Axes, Axes]:
        """Axes over which weights are gathered: those of their E, and those of their columns."""
        rows = tuple(axis for axis in self.stored_embed_axes if axis not in self.embed_axes)
        return rows, tuple(axis for axis in self.stored_ffn_axes if axis not in self.ffn_axes)

    @property
    def column_axes(self) -> Axes:
        """Axes that split heads and F of the activations; z slowest."""
        return self.ffn_axes + self.embed_axes

    @property
    def residual_axes(self) -> Axes:
        """Axes that split E of the residual stream: those of the weights first."""
        return self.embed_axes + self.ffn_axes

    @property
    def attention_axes(self) -> Axes:
        """Axes of ``column_axes`` over which attention splits the batch further; x slowest, empty for heads."""
        if self.attn_sharding != "batch" or not self.column_axes:
            return ()
        if not self.batch_axes:
            found = attention_batch_axes(self.batch_size, self.mesh_shape)
            return () if found is None else self._real(found)
        local = self.batch_size // self.size(self.batch_axes)
        for names in BATCH_AXES:
            axes = tuple(axis for axis in self._real(names) if axis in self.column_axes)
            if axes and local % self.size(axes) == 0:
                return axes
        return ()

    @property
    def head_axes(self) -> Axes:
        """Axes of ``column_axes`` that attention leaves to heads; z slowest."""
        return tuple(axis for axis in self.column_axes if axis not in self.attention_axes)

    @property
    def local_chunks(self) -> int:
        """Column chunks (one a chip of the mesh) that a chip works on: more than 1 where weights are gathered."""
        return self.chips // self.size(self.column_axes)

    @property
    def kv_heads(self) -> int:
        """Key/value heads with padding: a multiple of the chips or a divisor of them, so that chunks align with heads.

        Multihead pads to a multiple, as its key/value heads travel with their query heads.
        """
        model = self.model
        if model.num_kv_heads == model.num_heads:
            return math.ceil(model.num_heads / self.chips) * self.chips
        return next(
            count for count in itertools.count(model.num_kv_heads) if count % self.chips == 0 or self.chips % count == 0
        )

    @property
    def group(self) -> int:
        """Query heads of one key/value head, with padding: so many that all heads split evenly over all chips."""
        real = self.model.num_heads // self.model.num_kv_heads
        return next(count for count in itertools.count(real) if count * self.kv_heads % self.chips == 0)

    @property
    def heads(self) -> int:
        """Query heads with padding."""
        return self.kv_heads * self.group

    @property
    def kv_splits_by_head(self) -> bool:
        """Whether a chip's chunk of k and v is whole heads, those that its query heads read."""
        return self.kv_heads % self.chips == 0

    @property
    def q_width(self) -> int:
        """Query columns of one chunk."""
        return self.heads // self.chips * self.model.head_dim

    @property
    def kv_width(self) -> int:
        """Columns of k (and of v) of one chunk; a head may spread over several chunks.

        Looped products of stationary weights cut the columns into blocks. With padding to 16 k and v then keep a chunk
        at a multiple of the 32 that a TPU's memory has in a tile of int8: a matrix cut elsewhere is copied whole before
        it is read.
        """
        width = math.ceil(self.kv_heads * self.model.head_dim / self.chips)
        cut = self.loops and not self.kv_splits_by_head
        return math.ceil(width / 16) * 16 if cut else width

    @property
    def ffn_width(self) -> int:
        """Feed-forward columns of one chunk."""
        return self.model.d_ff // self.chips

    @property
    def vocab(self) -> int:
        """Vocabulary padded to split over all chips."""
        return math.ceil(self.model.vocab_size / self.chips) * self.chips

    @property
    def apart(self) -> bool:
        """Whether the tensors of a fused matrix are gathered and multiplied one by one.

        A gathered product has the columns of many chunks: to take its tensors apart, and to put chunks together again,
        copies more than the product's own time is worth. With one scale a token (int8 activations) they stay together.
        """
        return bool(self.batch_axes) and self.act_dtype != "int8"

    @property
    def fused(self) -> bool:
        """Whether attention and feed-forward share their projections: a parallel block whose halves read one norm."""
        return self.model.block == "parallel" and self.model.norms_per_layer == 1

    @property
    def interleaves(self) -> bool:
        """Whether a parallel block's collectives go beside its products (``layers.overlapped_block``).

        Where there is nothing but a prompt, its products loop.
        """
        sends = self.partitioner == "manual" and self.chips > 1 and not self.batch_axes
        return sends and self.fused and self.decodes and self.collectives == "latency"

    @property
    def loops(self) -> bool:
        """Whether products of stationary weights are cut into blocks, beside which a collective goes in a loop."""
        return self.collectives != "plain" and not self.batch_axes and not self.interleaves
