"""A GPU as the timeline sees it: an instruction takes as long as its arithmetic or its memory traffic at their peaks.

The roofline of Williams, Waterman and Patterson (2009), an instruction at a time. Nothing in it is fitted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from engines.compiled.cost.base import Bound, CollectiveTime, ComputeTime
from engines.compiled.cost.nvswitch import exchange
from engines.compiled.hlo.schedule import Collective, Step
from engines.core.chip import Chip
from engines.core.errors import Unsupported

NOT_MODELLED: Final = (
    "launch of kernels and of collectives",
    "efficiency below peak of arithmetic, memory and links",
    "the L2 cache, but in least_s: every operand is read from and every result written to HBM",
    "memory traffic of collectives",
    "reduction inside the switch",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU of ``devices`` on a switch. ``peaks`` are of tensor cores in FLOP/s by format.

    A value of up to ``kept_bytes`` is never read from HBM nor written to it: none, or all that the L2 cache could hold.
    """

    devices: int
    peaks: Mapping[str, float]
    vector_flops_per_s: float
    hbm_bytes_per_s: float
    switch_bytes_per_s: float
    l2_bytes: float = 0.0
    kept_bytes: float = 0.0

    def work(self, step: Step) -> ComputeTime:
        """max(arithmetic at its peak, bytes at the bandwidth of HBM)."""
        moved = sum(each.bytes for each in step.transfers if each.whole_bytes > self.kept_bytes)
        memory_s = moved / self.hbm_bytes_per_s
        if step.flops is None:
            return ComputeTime(seconds=memory_s, bound="memory", is_estimated=False)
        arithmetic_s = max(
            sum(count / self.matmul_peak(dtype) for dtype, count in step.flops.matmul.items()),
            # Half-width arithmetic outside tensor cores is faster by factors that differ, so only its bytes count.
            step.flops.vector.get("float32", 0.0) / self.vector_flops_per_s,
        )
        bound: Bound = "compute" if arithmetic_s > memory_s else "memory"
        return ComputeTime(seconds=max(memory_s, arithmetic_s), flops=step.flops.total, bound=bound)

    def matmul_peak(self, dtype: str) -> float:
        """Peak of a product; of a format that the datasheet does not state, the highest that it does."""
        return self.peaks.get(dtype, max(self.peaks.values()))

    def exchange(self, collective: Collective) -> CollectiveTime:
        """Time a collective on the switch; see :func:`engines.compiled.cost.nvswitch.exchange`."""
        return exchange(collective, self.devices, self.switch_bytes_per_s)

    def kindest(self) -> "Gpu":
        """With an L2 cache that keeps whatever fits into it by itself, for ever: the least that HBM can be asked."""
        return replace(self, kept_bytes=self.l2_bytes)

    def told(self) -> Mapping[str, Any]:
        """The roofs, and what is left out below them."""
        roofs = {
            "matmul_flops_per_s": dict(self.peaks),
            "vector_flops_per_s": self.vector_flops_per_s,
            "hbm_bytes_per_s": self.hbm_bytes_per_s,
            "switch_bytes_per_s": self.switch_bytes_per_s,
            "l2_bytes": self.l2_bytes,
            "not_modelled": list(NOT_MODELLED),
        }
        return {"roofline": roofs}


def gpu_of(chip: Chip, devices: int, vector_flops_per_s: float, l2_bytes: float) -> Gpu:
    """The machine that a chip's datasheet describes.

    Raises:
        Unsupported: it lacks a bandwidth.
    """
    if chip.hbm_bytes_per_s is None or chip.node_bytes_per_s is None:
        raise Unsupported(f"hw={chip.name}: its datasheet lacks the bandwidth of its memory or of its links")
    return Gpu(
        devices=devices,
        peaks=chip.peak_flops_per_s,
        vector_flops_per_s=vector_flops_per_s,
        hbm_bytes_per_s=chip.hbm_bytes_per_s,
        switch_bytes_per_s=chip.node_bytes_per_s,
        l2_bytes=l2_bytes,
    )
