"""A TPU as the timeline sees it: the compiler's own cycles over the core clock, and the links of a torus."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engines.compiled.cost.base import CollectiveTime, ComputeTime
from engines.compiled.cost.torus import LinkConstants, Torus, exchange
from engines.compiled.hlo.schedule import Collective, Step
from engines.core.chip import Chip
from engines.core.errors import Unsupported

if TYPE_CHECKING:
    from engines.compiled.target.tpu import TpuTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class Tpu:
    """One core and its links. ``set_by`` names the published rows that set the constants of the links."""

    clock_hz: float
    hbm_bytes_per_s: float
    torus: Torus
    links: LinkConstants
    set_by: tuple[str, ...] = ()

    def work(self, step: Step) -> ComputeTime:
        """Cycles over the clock."""
        if step.cycles is not None:
            return ComputeTime(seconds=step.cycles / self.clock_hz)
        # No estimate: what it moves, at the bandwidth of HBM. On-chip memory is faster, so this is the most it takes.
        return ComputeTime(seconds=(step.hbm_bytes or step.moved_bytes) / self.hbm_bytes_per_s, is_estimated=False)

    def exchange(self, collective: Collective) -> CollectiveTime:
        """Time a collective on the torus; see :func:`engines.compiled.cost.torus.exchange`."""
        return exchange(collective, self.torus, self.links)

    def kindest(self) -> None:
        """The compiler's cycles leave nothing out that could only help."""
        return

    def told(self) -> Mapping[str, Any]:
        """The constants, and what set them."""
        constants = {
            "clock_hz": self.clock_hz,
            "link_efficiency": self.links.link_efficiency,
            "hop_s": self.links.hop_s,
            "launch_s": self.links.launch_s,
            "set_by": list(self.set_by),
        }
        return {"constants": constants}


def tpu_of(chip: Chip, target: "TpuTarget") -> Tpu:
    """The machine that a target is.

    Raises:
        Unsupported: the datasheet or the constants lack a figure.
    """
    from engines.compiled.cost.constants import constants_for

    constants = constants_for(chip)
    if chip.hbm_bytes_per_s is None or chip.link_bytes_per_s is None:
        raise Unsupported(f"hw={chip.name}: its datasheet lacks the bandwidth of its memory or of its links")
    cores = (target.cores,) if target.cores > 1 else ()
    torus = Torus(
        shape=(*target.mesh_shape, *cores),
        wrap=(*target.wrap, *(False for _ in cores)),
        link_bytes_per_s=chip.link_bytes_per_s,
    )
    return Tpu(
        clock_hz=constants.clock_hz,
        hbm_bytes_per_s=chip.hbm_bytes_per_s / target.cores,
        torus=torus,
        links=constants.links,
        set_by=constants.set_by,
    )
