"""The calibrated constants: their meaning, their bounds, and which chip uses which file."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Final

from engines.core.chip import Chip
from engines.core.errors import ShardbenchError, Unsupported

CALIBRATED_FOR: Final[dict[str, str]] = {"tpu": "tpu-v4", "gpu": "a100-80gb"}
"""Kind of chip → the calibrated chip whose constants it uses where it has none of its own.

The rule for a chip without rows: rates come from its own datasheet; the fractions of them that are reached, the fixed
costs in seconds and the share that is hidden are those of the calibrated chip of its kind.
"""


STORED: Final = Path(__file__).parent / "constants"
"""The folder of the calibrated constants, one file per chip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """What a datasheet does not say. Fractions are of the datasheet's rate; times are seconds.

    The last five apply to one kind of chip only; the other kind keeps their defaults.
    """

    matmul_efficiency: float
    """Share of the dense peak that a wide matmul reaches."""
    half_width: float
    """Part of d_model on a chip at which a matmul reaches half of that."""
    hbm_efficiency: float
    """Share of the HBM bandwidth that a stream of weights, cache or activations reaches."""
    roofline_overlap: float
    """Share of the shorter of compute and memory time that runs under the longer."""
    link_efficiency: float
    """Share of the bandwidth of TPU links, or of a GPU node's switch, that a collective reaches."""
    layer_s: float
    """Fixed cost of a layer: kernel starts, norms, small vectors."""
    step_s: float
    """Fixed cost of a forward pass."""
    collective_s: float
    """Start of a collective."""
    hop_s: float
    """Each hop of it: between chips of a torus, or one step of a ring inside a GPU node."""
    sampling_s_per_logit: float
    """Sampling: time for one of batch × vocabulary logits that a chip holds."""
    hbm_usable: float
    """Share of the HBM that a program may fill; the rest is the runtime's."""
    axis_gain: float = 0.0
    """Torus: share of a further axis's links that a collective along several axes uses at the same time."""
    loop_hidden: float = 0.0
    """Torus: share of a looped collective's transfer that its matmul hides."""
    network_efficiency: float = 1.0
    """GPU: share of the network's bandwidth between nodes that a collective reaches."""
    network_collective_s: float = 0.0
    """GPU: what a collective that leaves the node costs on top."""
    stage_s: float = 0.0
    """GPU: fixed cost of handing a micro-batch to the next pipeline stage."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The range in which a constant makes physical sense."""

    low: float
    high: float


BOUNDS: Final[dict[str, Bound]] = {
    "matmul_efficiency": Bound(0.3, 1.0),
    "half_width": Bound(16.0, 8192.0),
    "hbm_efficiency": Bound(0.4, 1.0),
    "roofline_overlap": Bound(0.01, 1.0),
    "link_efficiency": Bound(0.1, 1.0),
    "layer_s": Bound(1e-6, 1e-3),
    "step_s": Bound(1e-5, 1e-1),
    "collective_s": Bound(1e-7, 3e-4),
    "hop_s": Bound(1e-7, 1e-5),
    "sampling_s_per_logit": Bound(1e-12, 1e-8),
    "hbm_usable": Bound(0.5, 1.0),
    "axis_gain": Bound(0.01, 1.0),
    "loop_hidden": Bound(0.01, 1.0),
    "network_efficiency": Bound(0.1, 1.0),
    "network_collective_s": Bound(1e-6, 1e-3),
    "stage_s": Bound(1e-5, 2e-2),
}


def constants_of(chip: Chip) -> Constants:
    """The constants for ``chip``: its own where it has a file, else those of the calibrated chip of its kind.

    Raises:
        Unsupported: a cpu, which has neither datasheet nor calibration, or a chip with a power limit.
    """
    if chip.kind not in CALIBRATED_FOR:
        raise Unsupported(f"hw={chip.name} has no datasheet, so nothing can be predicted for it; measure it instead")
    chip.check_full_power()
    return load(calibrated_name(chip))


def calibrated_name(chip: Chip) -> str:
    """The chip whose constants ``chip`` uses."""
    return chip.name if _file(chip.name).is_file() else CALIBRATED_FOR[chip.kind]


@cache
def provenance(chip_name: str) -> Mapping[str, Any]:
    """Where the constants of ``constants/NAME.yaml`` come from, for a row's details.

    ``rows`` counts the rows that set them, by source and model; ``error_without_model`` is, for each model, the mean
    relative error on its rows of constants that were fitted without them.
    """
    content = stored(chip_name)
    left_out = content.get("leave_one_model_out") or {}
    return {
        "constants": chip_name,
        "rows": dict(content.get("rows") or {}),
        "error_without_model": {model: errors["mape"] for model, errors in left_out.items()},
    }


@cache
def load(chip_name: str) -> Constants:
    """Read ``constants/NAME.yaml``."""
    return from_mapping(stored(chip_name)["constants"])


def from_mapping(content: Mapping[str, Any]) -> Constants:
    """Constants from plain values.

    Raises:
        ShardbenchError: a constant is missing, unknown, or outside its bounds.
    """
    for name, value in content.items():
        if name not in BOUNDS:
            raise ShardbenchError(f"constants.{name}: is not known; the constants are {', '.join(BOUNDS)}")
        bound = BOUNDS[name]
        if not bound.low <= float(value) <= bound.high:
            raise ShardbenchError(f"constants.{name}={value}: is outside {bound.low}..{bound.high}")
    given = {name: float(value) for name, value in content.items()}
    try:
        return Constants(**given)
    except TypeError:
        missing = [each.name for each in fields(Constants)][: len(fields(Constants)) - 5]
        name = next(each for each in missing if each not in given)
        raise ShardbenchError(f"constants.{name}: is missing") from None


@cache
def stored(chip_name: str) -> Mapping[str, Any]:
    """All that ``constants/NAME.yaml`` holds: the constants, what set them, and the errors that are left.

    Raises:
        ShardbenchError: there is no such file, or it holds no mapping.
    """
    from omegaconf import OmegaConf

    if not _file(chip_name).is_file():
        raise ShardbenchError(f"constants/{chip_name}.yaml: does not exist; make it with shardbench calibrate")
    content = OmegaConf.to_container(OmegaConf.create(_file(chip_name).read_text(encoding="utf-8")))
    if not isinstance(content, dict):
        raise ShardbenchError(f"constants/{chip_name}.yaml: holds no mapping")
    return {str(key): value for key, value in content.items()}


def _file(chip_name: str) -> Path:
    return STORED / f"{chip_name}.yaml"
