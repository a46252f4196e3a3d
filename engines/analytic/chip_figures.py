"""What the closed forms take of a chip's datasheet."""

from engines.core.chip import Chip
from engines.core.dtypes import ACTIVATION_DTYPES


def check_links(chip: Chip, num_gpus: int) -> None:
    """Check that the file of a GPU states the bandwidths between that many.

    Raises:
        Unsupported: it does not.
    """
    if chip.node_size > 1:
        chip.require("node_bytes_per_s", chip.node_bytes_per_s)
    if num_gpus > chip.node_size:
        chip.require("network_bytes_per_s", chip.network_bytes_per_s)


def peak_beside(chip: Chip, act_dtype: str) -> float:
    """The peak of what matmuls in 8 bits leave in 16: attention, and an output head that is not quantised."""
    if act_dtype in ACTIVATION_DTYPES:
        return chip.peak(act_dtype)
    stated = [chip.peak_flops_per_s[each] for each in ("bfloat16", "float16") if each in chip.peak_flops_per_s]
    return stated[0] if stated else chip.peak(act_dtype)
