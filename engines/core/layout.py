"""How a model is cut up over a mesh: the names, and which combinations exist.

Mesh axes are x, y, z of sizes X, Y, Z. Layouts as in Pope et al. 2022, section 3.2 and 3.3.
"""

from typing import Final, Literal, get_args

FfnLayout = Literal["auto", "ws_1d", "ws_2d", "wg_x", "wg_xy", "wg_xyz"]
AttnSharding = Literal["auto", "heads", "batch"]
Collectives = Literal["auto", "plain", "oneway", "throughput", "latency"]
Partitioner = Literal["manual", "gspmd"]

FFN_LAYOUTS: Final[tuple[str, ...]] = get_args(FfnLayout)
ATTN_SHARDINGS: Final[tuple[str, ...]] = get_args(AttnSharding)
COLLECTIVES: Final[tuple[str, ...]] = get_args(Collectives)
PARTITIONERS: Final[tuple[str, ...]] = get_args(Partitioner)

GATHERED_AXES: Final[dict[str, str]] = {"ws_1d": "", "ws_2d": "", "wg_x": "x", "wg_xy": "xy", "wg_xyz": "xyz"}
"""Layout → mesh axes over which weights are gathered and the batch is split instead."""

BATCH_AXES: Final[tuple[str, ...]] = ("xyz", "yz", "z")
"""The axes over which attention may split the batch, the most shards first."""


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
