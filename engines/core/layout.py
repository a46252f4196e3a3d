"""How a model is partitioned over a mesh: which mesh axes split which dimension, and how collectives run.

Mesh axes are x, y, z of sizes X, Y, Z. Layouts as in Pope et al. 2022, sections 3.2 and 3.3; ways to run collectives as
in section 3.5. Every engine reads layouts from here: a new one is one entry of :data:`LAYOUTS`.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from engines.core.errors import InvalidRequest

AttnSharding = Literal["auto", "heads", "batch", "sequence", "replicated"]
LatentAttention = Literal["auto", "absorbed", "expanded"]
ExpertDispatch = Literal["auto", "gather", "all_to_all"]
Partitioner = Literal["manual", "gspmd"]

ATTN_SHARDINGS: Final[tuple[str, ...]] = get_args(AttnSharding)
LATENT_ATTENTIONS: Final[tuple[str, ...]] = get_args(LatentAttention)
EXPERT_AXES: Final[tuple[str, ...]] = ("auto", "none", "x", "y", "z", "xy", "xz", "yz", "xyz")
EXPERT_DISPATCHES: Final[tuple[str, ...]] = get_args(ExpertDispatch)
PARTITIONERS: Final[tuple[str, ...]] = get_args(Partitioner)


@dataclass(frozen=True, slots=True)
class Layout:
    """A feed-forward layout as mesh axes: a weight matrix is stored as [E.stored_embed, F.stored_ffn].

    Weights are all-gathered over ``gathered`` before use, and the batch is split over those axes instead. Columns (F
    and heads) are split with z slowest, batches with x slowest.
    """

    name: str
    stored_embed: str
    stored_ffn: str
    gathered: str = ""

    @property
    def stored(self) -> tuple[str, str]:
        """How weights lie in memory: layouts in which it is equal run on the same arrays."""
        return self.stored_embed, self.stored_ffn

    @property
    def embed(self) -> str:
        """Axes that split E of the weights in use."""
        return "".join(axis for axis in self.stored_embed if axis not in self.gathered)

    @property
    def ffn(self) -> str:
        """Axes that split F and heads of the weights in use; z slowest."""
        return "".join(axis for axis in self.stored_ffn if axis not in self.gathered)


LAYOUTS: Final[dict[str, Layout]] = {
    each.name: each
    for each in (
        Layout("ws_1d", stored_embed="", stored_ffn="zyx"),
        Layout("ws_2d", stored_embed="x", stored_ffn="zy"),
        Layout("wg_x", stored_embed="x", stored_ffn="zy", gathered="x"),
        Layout("wg_xy", stored_embed="x", stored_ffn="zy", gathered="xy"),
        Layout("wg_xyz", stored_embed="x", stored_ffn="zy", gathered="xyz"),
    )
}
"""Weight-stationary 1D and 2D, and weight-gathered over more and more axes, by name."""
FFN_LAYOUTS: Final[tuple[str, ...]] = ("auto", *LAYOUTS)


@dataclass(frozen=True, slots=True)
class CollectiveVariant:
    """How a collective next to a matmul runs: as one operation, or as a loop of permutes between partial matmuls.

    A loop sends in ``directions`` along a ring at once and holds ``buffered_shards`` shards of a tensor. With
    ``overlaps_block`` in decode, each half of a parallel block overlaps its collectives with the other half's matmuls
    instead. With ``whole_residual`` the residual stream is not split over F's axes: a projection out of them ends with
    one all-reduce, and norms and projections into them send nothing. With ``exchanges`` a small one is an
    exchange of sums between pairs of chips.
    """

    name: str
    looped: bool
    directions: int = 2
    buffered_shards: int = 2
    overlaps_block: bool = False
    whole_residual: bool = False
    exchanges: bool = False


VARIANTS: Final[dict[str, CollectiveVariant]] = {
    each.name: each
    for each in (
        CollectiveVariant("plain", looped=False),
        CollectiveVariant("all_reduce", looped=False, whole_residual=True),
        CollectiveVariant("exchange", looped=False, whole_residual=True, exchanges=True),
        CollectiveVariant("oneway", looped=True, directions=1),
        CollectiveVariant("throughput", looped=True),
        CollectiveVariant("latency", looped=True, buffered_shards=4, overlaps_block=True),
    )
}
COLLECTIVES: Final[tuple[str, ...]] = ("auto", *VARIANTS)

BATCH_AXES: Final[tuple[str, ...]] = ("xyz", "yz", "z")
"""The axes over which attention may split the batch, the most shards first."""


def layout_of(name: str) -> Layout:
    """The layout of that name.

    Raises:
        InvalidRequest: there is none (``auto`` is a choice to be made first).
    """
    if name not in LAYOUTS:
        raise InvalidRequest("ffn_layout", name, "is not known", f"use one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def stationary(layout: Layout) -> Layout:
    """The layout that gathers nothing, of those that run on the same arrays as ``layout``."""
    return next(each for each in LAYOUTS.values() if each.stored == layout.stored and not each.gathered)


def variant_of(name: str) -> CollectiveVariant:
    """The way to run collectives of that name.

    Raises:
        InvalidRequest: there is none (``auto`` is a choice to be made first).
    """
    if name not in VARIANTS:
        raise InvalidRequest("collectives", name, "is not known", f"use one of {', '.join(VARIANTS)}")
    return VARIANTS[name]


def axes_size(axes: str, mesh_shape: tuple[int, int, int]) -> int:
    """Number of shards along ``axes``: ``axes_size("yz", (2, 3, 5)) == 15``."""
    sizes = dict(zip("xyz", mesh_shape, strict=True))
    size = 1
    for axis in axes:
        size *= sizes[axis]
    return size


def attention_batch_axes(batch_size: int, mesh_shape: tuple[int, int, int]) -> str | None:
    """The largest of xyz, yz, z whose shards divide the batch into equal parts; None where none does."""
    for axes in BATCH_AXES:
        shards = axes_size(axes, mesh_shape)
        if shards > 1 and batch_size % shards == 0:
            return axes
    return None
