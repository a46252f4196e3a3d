"""Which kind of target a slice is."""

from engines.compiled.target.base import Target
from engines.compiled.target.gpu import gpu_target_of
from engines.compiled.target.tpu import tpu_target_of
from engines.core.errors import Unsupported
from engines.core.slice import Slice


def target_of(slice_: Slice) -> Target:
    """Describe a slice to its compiler.

    Raises:
        Unsupported: the chip is a cpu or its file lacks a figure, or the slice has too many chips.
    """
    chip = slice_.chip
    if chip.kind == "cpu":
        raise Unsupported(f"hw={chip.name}: engine=compiled compiles for TPUs and GPUs; use engine=jax or engine=torch")
    return gpu_target_of(slice_) if chip.kind == "gpu" else tpu_target_of(slice_)
