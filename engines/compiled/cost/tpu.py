"""Cost model of a TPU: the compiler's own cycle counts over the core clock, and the links of a torus."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from engines.compiled.cost.base import CollectiveTime, ComputeTime
from engines.compiled.cost.constants import link_constants_of
from engines.compiled.cost.torus import Torus, collective_time
from engines.compiled.hlo.collective import Collective
from engines.compiled.hlo.opcodes import SEVERAL_PASSES
from engines.compiled.hlo.schedule import Step
from engines.core.chip import LinkConstants
from engines.core.slice import Slice


@dataclass(frozen=True, slots=True, kw_only=True)
class TpuCostModel:
    """One core and its links. ``set_by`` names the published rows that set the constants of the links.

    ``peak_flops_per_s`` bounds kernels that state their operations themselves.

    ``fixed_cycles`` is in every estimate of the compiler, whatever the size of the instruction: 0.58 µs on v4, 1.21 µs
    on v5e, v5p and v6e alike. It makes fusing attractive, but no chip spends it: with it, jax-llm-examples' decode of
    Llama-3-70B on 16 v5e comes out 10 to 42% slower than measured (batch 128 to 8); without it, by the constants that
    PaLM on v4 sets, between 1% faster and 12% slower. So it is taken off.
    """

    clock_hz: float
    hbm_bytes_per_s: float
    torus: Torus
    links: LinkConstants
    set_by: tuple[str, ...] = ()
    fixed_cycles: int = 0
    peak_flops_per_s: float | None = None
    cores: int = 1

    def with_links(self, links: LinkConstants) -> "TpuCostModel":
        """The same chip with other constants of its links."""
        return replace(self, links=links)

    def compute_time(self, step: Step) -> ComputeTime:
        """(Cycles − fixed ones) / clock, and no less than the bytes at HBM bandwidth."""
        memory_s = step.hbm_bytes / self.hbm_bytes_per_s
        if step.cycles is not None:
            # Below the fixed cycles are those of the scalar core, which have none.
            fixed = self.fixed_cycles if step.cycles >= self.fixed_cycles else 0
            return ComputeTime(seconds=max((step.cycles - fixed) / self.clock_hz, memory_s))
        if step.stated is not None:
            peak = self.peak_flops_per_s
            arithmetic_s = 0.0 if peak is None else step.stated.flops / peak
            seconds = max(arithmetic_s, step.stated.bytes / self.hbm_bytes_per_s)
            # What its author states, at the roofline: no chip is faster, and how much slower it is nobody knows.
            return ComputeTime(seconds=seconds, flops=step.stated.flops, is_estimated=False, least_s=seconds)
        # No cycle count: the bytes that it moves at HBM bandwidth, an upper bound as on-chip memory is faster; of one
        # that goes over them several times, a lower one.
        seconds = memory_s or step.moved_bytes / self.hbm_bytes_per_s
        least_s = seconds if step.opcode in SEVERAL_PASSES else 0.0
        return ComputeTime(seconds=seconds, is_estimated=False, least_s=least_s)

    def collective_time(self, collective: Collective) -> CollectiveTime:
        """Time of a collective on the torus; see :func:`engines.compiled.cost.torus.collective_time`."""
        return collective_time(collective, self.torus, self.links)

    def best_case(self) -> None:
        """None: the compiler's cycle counts leave out nothing that could only save time."""
        return

    def describe(self) -> Mapping[str, Any]:
        """The constants, and the rows that set them."""
        constants = {
            "clock_hz": self.clock_hz,
            "fixed_cycles": self.fixed_cycles,
            "link_efficiency": self.links.link_efficiency,
            "hop_s": self.links.hop_s,
            "launch_s": self.links.launch_s,
            "set_by": list(self.set_by),
        }
        return {"constants": constants}


def tpu_cost_model(slice_: Slice, places: tuple[int, ...] = ()) -> TpuCostModel:
    """The cost model of one core of a slice; ``places`` are those of :class:`Torus`.

    Raises:
        Unsupported: the chip's file lacks its clock, a bandwidth or its ``xla`` part.
    """
    chip = slice_.chip
    xla = chip.require("xla", chip.xla)
    cores = (xla.cores,) if xla.cores > 1 else ()
    torus = Torus(
        shape=(*slice_.mesh_shape, *cores),
        wrap=(*slice_.wrap, *(False for _ in cores)),
        link_bytes_per_s=chip.require("link_bytes_per_s", chip.link_bytes_per_s),
        places=places,
    )
    fitted = link_constants_of(chip)
    return TpuCostModel(
        clock_hz=chip.require("clock_hz", chip.clock_hz),
        hbm_bytes_per_s=chip.require("hbm_bytes_per_s", chip.hbm_bytes_per_s) / xla.cores,
        torus=torus,
        links=fitted.constants,
        peak_flops_per_s=peak / xla.cores if (peak := chip.peak_flops_per_s.get("bfloat16")) else None,
        set_by=fitted.set_by,
        fixed_cycles=xla.fixed_cycles,
        cores=xla.cores,
    )
