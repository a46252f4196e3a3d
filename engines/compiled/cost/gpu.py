"""Cost model of a GPU: an instruction takes as long as its arithmetic or its memory traffic at peak rate.

The roofline of Williams, Waterman and Patterson (2009) per instruction. Nothing in it is fitted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from engines.compiled.cost.base import Bound, CollectiveTime, ComputeTime
from engines.compiled.cost.nvswitch import collective_time
from engines.compiled.hlo.collective import Collective
from engines.compiled.hlo.schedule import Step
from engines.core.chip import Chip, Cuda, cuda_of, tensor_core_clock_hz

NOT_MODELLED: Final = (
    "launch of kernels and of collectives",
    "efficiency below peak of arithmetic, memory and links",
    "the L2 cache, but in least_s: every operand is read from and every result written to HBM",
    "memory traffic of collectives",
    "reduction inside the switch",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuCostModel:
    """One GPU of ``devices`` on a switch, which a single one does not need.

    ``peaks`` are the tensor cores' in FLOP/s by dtype.

    A value of at most ``kept_bytes`` stays in the L2 cache and causes no HBM traffic: 0, or the cache's size.
    """

    devices: int
    peaks: Mapping[str, float]
    vector_flops_per_s: float
    hbm_bytes_per_s: float
    switch_bytes_per_s: float | None
    l2_bytes: float = 0.0
    kept_bytes: float = 0.0

    def compute_time(self, step: Step) -> ComputeTime:
        """max(arithmetic at its peak, bytes at HBM bandwidth)."""
        moved = sum(each.bytes for each in step.transfers if each.whole_bytes > self.kept_bytes)
        memory_s = moved / self.hbm_bytes_per_s
        if step.flops is None:
            return ComputeTime(seconds=memory_s, bound="memory", is_estimated=False)
        arithmetic_s = max(
            sum(count / self.matmul_peak(dtype) for dtype, count in step.flops.matmul.items()),
            # 16-bit arithmetic outside tensor cores is faster by a chip-dependent factor: only its bytes count.
            step.flops.vector.get("float32", 0.0) / self.vector_flops_per_s,
        )
        bound: Bound = "compute" if arithmetic_s > memory_s else "memory"
        return ComputeTime(seconds=max(memory_s, arithmetic_s), flops=step.flops.total, bound=bound)

    def matmul_peak(self, dtype: str) -> float:
        """Peak of a matmul in FLOP/s; the highest of all for a dtype that the datasheet does not state."""
        return self.peaks.get(dtype, max(self.peaks.values()))

    def collective_time(self, collective: Collective) -> CollectiveTime:
        """Time of a collective on the switch; see :func:`engines.compiled.cost.nvswitch.collective_time`."""
        assert self.switch_bytes_per_s is not None, "a program of one GPU has no collective"
        return collective_time(collective, self.devices, self.switch_bytes_per_s)

    def best_case(self) -> "GpuCostModel":
        """With an L2 cache that never evicts a value that fits into it: a lower bound of HBM traffic."""
        return replace(self, kept_bytes=self.l2_bytes)

    def describe(self) -> Mapping[str, Any]:
        """The roofs, and the effects that are not modelled."""
        roofs = {
            "matmul_flops_per_s": dict(self.peaks),
            "vector_flops_per_s": self.vector_flops_per_s,
            "hbm_bytes_per_s": self.hbm_bytes_per_s,
            "switch_bytes_per_s": self.switch_bytes_per_s,
            "l2_bytes": self.l2_bytes,
            "not_modelled": list(NOT_MODELLED),
        }
        return {"roofline": roofs}


def gpu_cost_model(chip: Chip, devices: int) -> GpuCostModel:
    """The cost model of one of ``devices`` GPUs of a node.

    Raises:
        Unsupported: the chip's file lacks a bandwidth, its float16 peak or its ``cuda`` part.
    """
    cuda = cuda_of(chip)
    switch = chip.node_bytes_per_s if devices == 1 else chip.require("node_bytes_per_s", chip.node_bytes_per_s)
    return GpuCostModel(
        devices=devices,
        peaks=chip.peak_flops_per_s,
        vector_flops_per_s=vector_flops_per_s(chip, cuda),
        hbm_bytes_per_s=chip.require("hbm_bytes_per_s", chip.hbm_bytes_per_s),
        switch_bytes_per_s=switch,
        l2_bytes=cuda.l2_bytes,
    )


def vector_flops_per_s(chip: Chip, cuda: Cuda) -> float:
    """Peak of float32 arithmetic outside tensor cores: lanes × 2 (a multiply and an add) × clock.

    Raises:
        Unsupported: the datasheet states no float16 peak to solve the clock from.
    """
    return float(cuda.multiprocessors * cuda.float32_lanes * 2 * tensor_core_clock_hz(chip, cuda))
