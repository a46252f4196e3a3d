"""Which kind of target a slice is."""

from engines.compiled.target.base import Target
from engines.compiled.target.gpu import gpu_target_of
from engines.compiled.target.tpu import tpu_target_of
from engines.core.slice import Slice


def target_of(slice_: Slice) -> Target:
    """Describe a slice to its compiler.

    Raises:
        Unsupported: no compiler supports its chip, or the slice has more chips than a target may have.
    """
    return gpu_target_of(slice_) if slice_.chip.kind == "gpu" else tpu_target_of(slice_)
