"""The few calibrated constants: what each means, its bounds, and which chips take whose."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any, Final

from engines.chip import Chip
from engines.errors import ShardbenchError, Unsupported

CALIBRATED_FOR: Final[dict[str, str]] = {"tpu": "tpu-v4", "gpu": "a100-80gb"}
"""Kind of chip → the chip whose constants it takes.

The rule for a chip without rows of its own: rates come from its own datasheet, and the fractions of them that are
reached, the fixed costs in seconds and the share that is hidden are those of the calibrated chip of its kind.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """What a datasheet does not say. Fractions are of the datasheet's rate; times are seconds.

    A loop hides at most ``loop_hidden`` of its transfer. Collectives inside one GPU node and on a torus cost
    ``collective_s`` to start and ``hop_s`` a hop; one that leaves the node costs ``network_collective_s`` instead.
    """

    matmul_efficiency: float
    """Share of the dense peak that a matmul with many rows reaches."""
    half_rows: float
    """Rows (tokens) on a chip at which a matmul reaches half of that."""
    half_columns: float
    """Output columns on a chip at which a matmul reaches half of that."""
    hbm_efficiency: float
    """Share of the HBM bandwidth that a stream of weights or cache reaches."""
    roofline_overlap: float
    """Share of the shorter of compute and memory time that runs under the longer."""
    link_efficiency: float
    """Share of the bandwidth of TPU links or of a GPU node's switch that a collective reaches."""
    axis_gain: float
    """Share of a further torus axis's links that a collective along several axes uses at the same time."""
    network_efficiency: float
    """The same for the network between nodes."""
    loop_hidden: float
    """Share of a looped collective's transfer that its matmul hides."""
    layer_s: float
    """Fixed cost of a layer: kernel starts, norms, small vectors."""
    step_s: float
    """Fixed cost of a forward pass."""
    collective_s: float
    hop_s: float
    network_collective_s: float
    sampling_s_per_logit: float
    """Sampling: time for one of batch × vocabulary logits on one chip."""
    hbm_usable: float
    """Share of the HBM that a program may fill; the rest is the runtime's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The range in which a constant makes physical sense."""

    low: float
    high: float


BOUNDS: Final[dict[str, Bound]] = {
    "matmul_efficiency": Bound(low=0.3, high=1.0),
    "half_rows": Bound(low=1.0, high=512.0),
    "half_columns": Bound(low=1.0, high=2048.0),
    "hbm_efficiency": Bound(low=0.4, high=1.0),
    "roofline_overlap": Bound(low=0.0, high=1.0),
    "link_efficiency": Bound(low=0.1, high=1.0),
    "axis_gain": Bound(low=0.0, high=1.0),
    "network_efficiency": Bound(low=0.1, high=1.0),
    "loop_hidden": Bound(low=0.0, high=1.0),
    "layer_s": Bound(low=1e-6, high=1e-3),
    "step_s": Bound(low=1e-5, high=1e-1),
    "collective_s": Bound(low=1e-7, high=3e-4),
    "hop_s": Bound(low=1e-7, high=1e-5),
    "network_collective_s": Bound(low=1e-6, high=1e-3),
    "sampling_s_per_logit": Bound(low=1e-12, high=1e-8),
    "hbm_usable": Bound(low=0.5, high=1.0),
}


def constants_of(chip: Chip) -> Constants:
    """The constants for ``chip``: its own, else those of the calibrated chip of its kind.

    Raises:
        Unsupported: a cpu, which has neither datasheet nor calibration.
    """
    if chip.kind not in CALIBRATED_FOR:
        raise Unsupported(f"hw={chip.name} has no datasheet, so nothing can be predicted for it; measure it instead")
    return load(CALIBRATED_FOR[chip.kind])


@cache
def load(chip_name: str) -> Constants:
    """Read ``constants/NAME.yaml``."""
    return from_mapping(stored(chip_name)["constants"])


def from_mapping(content: Mapping[str, Any]) -> Constants:
    """Constants from plain values.

    Raises:
        ShardbenchError: a constant is missing, unknown, or outside its bounds.
    """
    names = {field.name for field in fields(Constants)}
    if content.keys() != names:
        odd = sorted(content.keys() ^ names)[0]
        raise ShardbenchError(f"constants.{odd}: is missing or unknown; the constants are {', '.join(sorted(names))}")
    for name, value in content.items():
        bound = BOUNDS[name]
        if not bound.low <= float(value) <= bound.high:
            raise ShardbenchError(f"constants.{name}={value}: is outside {bound.low}..{bound.high}")
    return Constants(**{name: float(value) for name, value in content.items()})


@cache
def stored(chip_name: str) -> Mapping[str, Any]:
    """All that ``constants/NAME.yaml`` holds: the constants, the rows that set them, and what is left over."""
    from omegaconf import OmegaConf

    text = (files("engines.analytic") / "constants" / f"{chip_name}.yaml").read_text(encoding="utf-8")
    content = OmegaConf.to_container(OmegaConf.create(text))
    if not isinstance(content, dict):
        raise ShardbenchError(f"constants/{chip_name}.yaml: holds no mapping")
    return {str(key): value for key, value in content.items()}
