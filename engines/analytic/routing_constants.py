"""Constants of experts, which no row has set: stated with the reason, and part of what answers a sparse model alone."""

from dataclasses import dataclass
from typing import Final

from engines.analytic.priors import GRAPH_S


@dataclass(frozen=True, slots=True)
class RoutingConstants:
    """``grouped_rows``: rows of the tiles of a grouped matmul, of which each expert's last is partly empty.

    ``routing_s``: fixed cost of routing in a layer, beside the matmuls and the bytes. Nothing is fitted to a row;
    ``why`` says where they are from.
    """

    grouped_rows: float
    routing_s: float
    why: str


OF_KIND: Final = {
    "tpu": RoutingConstants(
        128.0,
        2e-5,
        "the MXU has 128 rows to fill, of which ragged_dot's kernel multiplies whole tiles; a top-k, a sort and two "
        "gathers of a few microseconds each",
    ),
    "gpu": RoutingConstants(
        16.0,
        6 * GRAPH_S,
        "kernels for few rows an expert take tiles of 16 (BLOCK_SIZE_M of fused_moe in vLLM and SGLang); top-k, sort, "
        "permutation and its inverse are six kernels of a recorded graph",
    ),
}
"""Kind of chip → its constants."""


def routing_constants(kind: str) -> RoutingConstants:
    """The constants of a kind of chip; of one for which nothing is predicted, a TPU's."""
    return OF_KIND.get(kind, OF_KIND["tpu"])
