"""A plan: a model, a mesh and a layout, resolved into axes and local sizes before any array exists.

Gathered over ``axes.batch``, a matrix is [E.embed, F.ffn] in every layout; ``ws_2d`` and ``wg_*`` store the same.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from engines.core.dtypes import MX_BLOCK
from engines.core.errors import InvalidRequest
from engines.core.layout import Partitioner, layout_of, variant_of
from engines.core.model import Model
from engines.core.shardings import Shardings
from engines.core.slice import MeshShape
from engines.core.weight_groups import check_groups
from engines.transformer.options import WHOLE_PROMPT, PrefillOptions
from engines.transformer.partition.attention_checks import check_attention
from engines.transformer.partition.axes import Axes, MeshAxes, PlannedAxes
from engines.transformer.partition.expert_axes import ExpertAxes, planned_experts
from engines.transformer.partition.expert_checks import check_experts
from engines.transformer.partition.group_rows import rows_of_a_chip
from engines.transformer.partition.overlap import Overlap, overlap_of
from engines.transformer.partition.padding import Padded
from engines.transformer.partition.sharding_checks import check_shardings
from engines.transformer.partition.stacks import Stack, Turn, loops_of

STAGE: Final = "stage"


class Annotation(NamedTuple):
    """How the compiler is to split global arrays: as ``plan`` does, over ``mesh``."""

    plan: "Plan"
    mesh: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A resolved layout of one model on one mesh, for one batch and cache length.

    ``ffn_layout`` and ``collectives`` are names of :mod:`engines.core.layout`, ``attn_sharding`` says what attention is
    split over: no ``auto``, and replicated is heads. ``latent_attention`` may be ``auto`` (:meth:`absorbs`).
    ``cache_len`` is the number of positions that the cache holds, ``longest_text`` that of the longest text where this
    is longer. Steps of ``ragged`` sequences stand at positions of their own; with ``pages`` (how many over all chips,
    positions of each) their cache has no padding. With ``stages`` of a pipeline, ``batch_size`` is that of one of its
    ``micro_batches``, and the mesh has an axis :data:`STAGE`. ``decodes`` says whether decode steps follow the
    prompt. With ``unrolled`` every layer has arrays of its own and no loop runs over layers.
    ``overlapped_all_to_all_chips`` is the chip's, ``wrap`` says which axes of its torus close to rings.
    ``expert_axes`` names the mesh axes that split experts ("" is none), ``expert_dispatch`` is
    gather or all_to_all, ``expert_capacity`` the most tokens of an expert, as a multiple of its even share.
    ``shardings`` are those of every operator, for a compiler that partitions; with ``offloads`` the layers' matrices
    are in host memory, with ``offloads_kv`` the cache. ``chunks`` and ``annotation`` are of :meth:`global_view`; which
    axes split what, follows.

    Raises:
        InvalidRequest: there is no such layout or variant of collectives.
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
    weight_group_size: int | None = None
    head_dtype: str | None = None
    latent_attention: str = "auto"
    collectives: str = "plain"
    partitioner: Partitioner = "manual"
    decodes: bool = True
    unrolled: bool = False
    prefill: PrefillOptions = WHOLE_PROMPT
    overlapped_all_to_all_chips: int | None = None
    wrap: tuple[bool, bool, bool] = (False, False, False)
    expert_axes: str = ""
    expert_dispatch: str = "gather"
    expert_capacity: float | None = None
    longest_text: int | None = None
    shardings: Shardings | None = None
    ragged: bool = False
    pages: tuple[int, int] | None = None
    stages: int = 1
    micro_batches: int = 1
    offloads: bool = False
    offloads_kv: bool = False
    chunks: int | None = None
    annotation: Annotation | None = None
    axes: MeshAxes = field(init=False)
    experts: ExpertAxes = field(init=False)
    overlap: Overlap = field(init=False)
    padded: Padded = field(init=False)

    def __post_init__(self) -> None:
        variant = variant_of(self.collectives)
        cuts = None if self.annotation is not None else self.shardings
        told = () if cuts is None else (cuts["attention"],)
        axes = (PlannedAxes if told else MeshAxes)(
            layout_of(self.ffn_layout),
            self.mesh_shape,
            self.attn_sharding,
            self.batch_size,
            variant.whole_residual,
            1 if self.model.attention.is_latent else self.model.num_kv_heads,
            *told,
        )
        manual = self.partitioner == "manual"
        overlap = overlap_of(self.model, axes, self.collectives, manual=manual, decodes=self.decodes)
        # Only where a chip attends with the heads of one chunk: with those of several it would cache a head twice.
        copies = manual and variant.whole_residual and not axes.batch and not axes.moved
        padded = Padded(self.model, self.chunks or axes.chips, overlap is Overlap.RING_OF_ACTIVATIONS, copies)
        split = axes.nontrivial("".join(sorted(self.expert_axes)))
        experts = ExpertAxes(axes, split, self.expert_dispatch == "all_to_all" and bool(split))
        if cuts is not None and "experts" in cuts:
            experts = planned_experts(axes, cuts["experts"])
        for name, value in (("axes", axes), ("experts", experts), ("overlap", overlap), ("padded", padded)):
            object.__setattr__(self, name, value)

    def check(self) -> None:
        """Check that the model splits over the mesh in this layout.

        Raises:
            InvalidRequest: a dimension does not split over its axes, or groups of weights over a chip's part of it.
        """
        model, shape, axes = self.model, list(self.mesh_shape), self.axes
        split = {"d_model": model.d_model}
        if any(not kind.has_experts for kind in model.layer_kinds):
            split["d_ff"] = model.ffn.stored_columns
        if model.experts is not None and model.experts.shared is not None:
            split["shared_expert_d_ff"] = model.experts.shared.stored_columns
        for key, size in split.items():
            if size % self.chips:
                raise InvalidRequest(
                    f"model.{key}",
                    size,
                    f"does not split over the {self.chips} chips of mesh_shape={shape}",
                    f"use a mesh whose size divides {size}",
                )
        check_experts(self)
        check_shardings(self)
        if self.rows_of_group is not None:
            check_groups(self.rows_of_group, rows_of_a_chip(self), f" on a chip of mesh_shape={shape}")
        if self.batch_size % axes.size(axes.batch):
            raise InvalidRequest(
                "batch_size",
                self.batch_size,
                f"does not split over the {axes.size(axes.batch)} shards of ffn_layout={self.ffn_layout}",
                f"use a multiple of {axes.size(axes.batch)}, or ffn_layout=ws_2d",
            )
        if self.shardings is None and self.attn_sharding == "batch" and self.chips > 1 and not axes.sequence:
            raise InvalidRequest(
                "batch_size",
                self.batch_size,
                f"does not split over any axes of mesh_shape={shape} for attn_sharding=batch",
                "use a multiple of a mesh axis, or attn_sharding=heads",
            )
        check_attention(self)

    def capacity_of(self, tokens: int) -> int:
        """Rows of each expert's buffer for ``tokens`` tokens that share it, rounded up."""
        experts = self.model.experts
        assert experts is not None
        assert self.expert_capacity is not None
        return math.ceil(self.expert_capacity * tokens * experts.per_token / experts.count)

    @property
    def local_experts(self) -> int:
        """Experts of one chip."""
        return (self.model.num_experts or 0) // self.experts.shards

    @property
    def text_len(self) -> int:
        """Tokens of the longest text: what rotary positions are stretched for."""
        return self.longest_text or self.cache_len

    @property
    def loops(self) -> tuple[Turn, ...]:
        """The loops over layers that a pass runs, :func:`engines.transformer.partition.stacks.loops_of`."""
        return loops_of(self.model, self.unrolled)

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """The stacks of all loops, in order."""
        return tuple(stack for turn in self.loops for stack in turn)

    @property
    def rows_of_group(self) -> int | None:
        """Rows of a matrix that share a scale: a group's, or a block's of a format that has blocks; None of others."""
        return MX_BLOCK if self.weight_dtype == "mxfp4" else self.weight_group_size

    @property
    def head_format(self) -> str:
        """Number format of the embedding and of the output head."""
        return self.head_dtype or self.weight_dtype

    @property
    def chips(self) -> int:
        """The number of chunks that columns are split into: n = X·Y·Z, also in a global view."""
        return self.padded.chips

    def global_view(self, mesh: Any) -> "Plan":
        """The same computation on global arrays of the same shapes, for the compiler to partition.

        The program has no collectives of its own, as on one chip; sharding constraints say how this plan splits values.
        """
        return replace(
            self,
            mesh_shape=(1, 1, 1),
            ffn_layout="ws_1d",
            attn_sharding="heads",
            chunks=self.chips,
            annotation=Annotation(self, mesh),
        )

    @property
    def cached_dims(self) -> tuple[int, int]:
        """Elements of a cached key and value of a head; of latent attention, of the latent vector and shared key."""
        model = self.model
        if model.kv_latent_dim is not None:
            return model.kv_latent_dim, model.rotated_dim
        return model.head_dim, model.head_dim

    @property
    def cache_positions(self) -> int:
        """Positions of a sequence that a chip's cache holds, where a multiple of the chips shares them."""
        return -(-self.cache_len // self.axes.size(self.axes.positions))

    def absorbs(self, time: int, limit: int) -> bool:
        """Whether ``time`` queries go to the latent space, rather than ``limit`` latent vectors to keys and values.

        Either multiplies something of each head by both up-projections: every query, or every key. A pair of query and
        key then takes 2·latent + rotary products in the latent space and head_dim + value_head_dim out of it. ``auto``
        is the fewer products: absorbed in a decode step, expanded for a whole prompt.
        """
        if self.latent_attention != "auto":
            return self.latent_attention == "absorbed"
        model, attention = self.model, self.model.attention
        latent = model.kv_latent_dim or 0
        nope = model.head_dim - model.rotated_dim
        more = 2 * latent + model.rotated_dim - model.head_dim - attention.value_dim
        return time * limit * more < (limit - time) * latent * (nope + attention.value_dim)

    @property
    def kv_axes(self) -> Axes:
        """Axes that split key/value heads where each is stored once; () where there are fewer heads than chips."""
        if self.shardings is None:
            return self.axes.head if self.padded.kv_splits_by_head else ()
        counts = range(len(self.axes.head) + 1)
        return self.axes.head[
            : max(n for n in counts if self.padded.kv_heads % self.axes.size(self.axes.head[:n]) == 0)
        ]

    def is_ring(self, axis: str) -> bool:
        """Whether the chips along a mesh axis stand in a ring."""
        return self.wrap["xyz".index(axis)]

    @property
    def local_chunks(self) -> int:
        """Column chunks (one per chip of the mesh) that a chip computes: more than 1 where weights are gathered."""
        return self.chips // self.axes.size(self.axes.column)

    @property
    def separates_tensors(self) -> bool:
        """Whether the tensors of a fused matrix are gathered and multiplied one by one.

        A fused matmul with gathered weights has the columns of many chunks; separating its tensors and rejoining the
        chunks would cost more than fusion saves. They stay fused with int8 activations (one scale a token) and where
        products are summed over chips.
        """
        return bool(self.axes.batch) and not self.axes.embed and self.act_dtype != "int8"

    @property
    def fuses_rows(self) -> bool:
        """Whether a matmul may be fused with what makes its rows, a norm or an activation: nothing is sent between.

        Norms of a whole residual are the same work on every chip; a TPU's schedules are shorter when matmuls take it
        on, although each tile of a matmul then makes its rows again.
        """
        return self.axes.whole_residual

    @property
    def circulates_ffn(self) -> bool:
        """Whether the feed-forward's weights circulate in a ring, block by block, along its columns."""
        rings = self.overlap is Overlap.RING_OF_WEIGHTS
        blocks = self.separates_tensors and self.model.ffn.made_by_column
        return rings and blocks and bool(self.axes.gathered[1])
