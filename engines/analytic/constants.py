"""The calibrated constants: their meaning, their bounds, and whose a point takes.

A constant is a chip's, such as the share of its HBM bandwidth that a stream reaches, or a runtime's, such as what it
takes to start a layer's kernels. A chip's are in ``constants/CHIP.yaml``, a runtime's in ``conf/runtime/NAME.yaml``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Final

from engines.core.chip import Chip
from engines.core.errors import ShardbenchError, Unsupported
from engines.core.point import Point
from engines.core.runtime import BEST, Runtime, shipped

CALIBRATED_FOR: Final[dict[str, str]] = {"tpu": "tpu", "gpu": "gpu"}
"""Kind of chip → the file of the shares that a chip of that kind without rows of its own takes.

The rule for a chip without rows: rates come from its own datasheet; the shares of them that are reached are the
medians of the kind, as the hierarchical fit finds them.
"""
BEST_OF: Final[dict[str, str]] = {"gpu": BEST, "tpu": "xla"}
"""Kind of chip → the runtime from which others take what they have not, and which ``best`` stands for there."""
STORED: Final = Path(__file__).parent / "constants"
"""The folder of the chips' constants, one file a chip, beside the medians of each kind."""

CHIP: Final = "chip"
RUNTIME: Final = "runtime"


def _of(owner: str, low: float, high: float) -> dict[str, Any]:
    return {"of": owner, "low": low, "high": high}


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """What a datasheet does not say. Shares are of the datasheet's rate; times are seconds.

    A constant at its default adds nothing. ``stream_*`` and ``matmul_*`` are by the format of the weights, and of the
    matmuls; the shares of a runtime multiply the chip's.
    """

    matmul_efficiency: float = field(metadata=_of(CHIP, 0.3, 1.0))
    """Share of the dense peak that a wide matmul reaches."""
    half_width: float = field(metadata=_of(CHIP, 16.0, 8192.0))
    """Part of d_model on a chip at which a matmul reaches half of that."""
    hbm_efficiency: float = field(metadata=_of(CHIP, 0.4, 1.0))
    """Share of the HBM bandwidth that a stream of weights or activations reaches."""
    link_efficiency: float = field(metadata=_of(CHIP, 0.1, 1.0))
    """Share of the bandwidth of TPU links, or of a GPU node's switch, that a collective reaches."""
    axis_gain: float = field(default=0.0, metadata=_of(CHIP, 0.0, 1.0))
    """Torus: share of a further axis's links that a collective along several axes uses at the same time."""
    network_efficiency: float = field(default=1.0, metadata=_of(CHIP, 0.1, 1.0))
    """GPU: share of the network's bandwidth between nodes that a collective reaches."""
    roofline_overlap: float = field(metadata=_of(RUNTIME, 0.01, 1.0))
    """Share of the shorter of compute and memory time that runs under the longer."""
    layer_s: float = field(metadata=_of(RUNTIME, 1e-7, 5e-3))
    """Fixed cost of a layer on the device: gaps between kernels, norms, small vectors."""
    step_s: float = field(metadata=_of(RUNTIME, 0.0, 1e-1))
    """Fixed cost of a forward pass."""
    collective_s: float = field(metadata=_of(RUNTIME, 1e-7, 3e-4))
    """Start of a collective."""
    hop_s: float = field(metadata=_of(RUNTIME, 1e-8, 2e-5))
    """Each hop of it: between chips of a torus, or one step of a ring inside a GPU node."""
    sampling_s_per_logit: float = field(metadata=_of(RUNTIME, 0.0, 1e-8))
    """Sampling: time for one of batch × vocabulary logits that a chip holds: of a sort, or of a maximum."""
    hbm_usable: float = field(metadata=_of(RUNTIME, 0.5, 1.0))
    """Share of the HBM that a program may fill; the rest is the runtime's, or lost between fragments."""
    loop_hidden: float = field(default=0.0, metadata=_of(RUNTIME, 0.0, 1.0))
    """Torus: share of a looped collective's transfer that its matmul hides."""
    prefetch: float = field(default=0.0, metadata=_of(RUNTIME, 0.0, 0.9))
    """Torus: share of the time of collectives and fixed costs in which the next weights are fetched; never all."""
    network_collective_s: float = field(default=0.0, metadata=_of(RUNTIME, 0.0, 1e-3))
    """GPU: what a collective that leaves the node costs on top."""
    stage_s: float = field(default=0.0, metadata=_of(RUNTIME, 0.0, 2e-2))
    """GPU: fixed cost of handing a micro-batch to the next pipeline stage."""
    host_layer_s: float = field(default=0.0, metadata=_of(RUNTIME, 0.0, 2e-2))
    """Time in which the host starts a layer's kernels, while the device runs those before: the longer one counts."""
    host_prefill_layer_s: float = field(default=0.0, metadata=_of(RUNTIME, 0.0, 2e-2))
    """The same in a prefill, which may run without the graph that a decode step has."""
    request_s: float = field(default=0.0, metadata=_of(RUNTIME, 0.0, 1.0))
    """Fixed cost of a request, beside its passes."""
    score_passes: float = field(default=0.0, metadata=_of(RUNTIME, 0.0, 64.0))
    """Times that attention scores of 2 bytes cross HBM where they are materialised: 0 where attention is fused."""
    encoder_score_passes: float = field(default=0.0, metadata=_of(RUNTIME, 0.0, 64.0))
    """The same in an encoder, for which some runtimes have other kernels."""
    vector_passes: float = field(default=1.0, metadata=_of(RUNTIME, 0.05, 100.0))
    """Activations that cross HBM between matmuls, as a multiple of what FasterTransformer's kernels move."""
    cache_efficiency: float = field(default=1.0, metadata=_of(RUNTIME, 0.02, 3.0))
    """Rate at which attention reads the cache, as a multiple of a stream of weights: less where it is copied, too."""
    kv_reread: float = field(default=0.0, metadata=_of(RUNTIME, 0.0, 1.0))
    """Of a key/value head's further query heads, the share for which a decode step reads it again."""
    attention_matmul: float = field(default=1.0, metadata=_of(RUNTIME, 0.05, 3.0))
    """Share of a wide matmul's rate that attention's own matmuls reach."""
    stream_16bit: float = field(default=1.0, metadata=_of(RUNTIME, 0.05, 1.5))
    stream_int8: float = field(default=1.0, metadata=_of(RUNTIME, 0.05, 1.5))
    stream_int4: float = field(default=1.0, metadata=_of(RUNTIME, 0.05, 1.5))
    stream_float8: float = field(default=1.0, metadata=_of(RUNTIME, 0.05, 1.5))
    """Rate at which a matmul streams weights of a format, as a share of the chip's streams."""
    matmul_16bit: float = field(default=1.0, metadata=_of(RUNTIME, 0.05, 1.5))
    matmul_int8: float = field(default=1.0, metadata=_of(RUNTIME, 0.05, 1.5))
    matmul_float8: float = field(default=1.0, metadata=_of(RUNTIME, 0.05, 1.5))
    """Share of the chip's reached peak of a format that this runtime's matmuls reach."""
    prefill_tokens: float = field(default=1e9, metadata=_of(RUNTIME, 1.0, 1e9))
    """Most tokens of a batch whose activations are in memory at once; more are prefilled in parts."""
    cache_grows: float = field(default=0.0, metadata=_of(RUNTIME, 0.0, 1.0))
    """1 where the cache takes memory as sequences grow, and 0 where it is all taken at the start."""
    all_logits: float = field(default=0.0, metadata=_of(RUNTIME, 0.0, 1.0))
    """1 where a prefill makes the logits of all positions and not of the last alone, else 0."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The range in which a constant makes physical sense."""

    low: float
    high: float


BOUNDS: Final[dict[str, Bound]] = {
    each.name: Bound(each.metadata["low"], each.metadata["high"]) for each in fields(Constants)
}
OWNER: Final[dict[str, str]] = {each.name: each.metadata["of"] for each in fields(Constants)}
"""Constant → whose it is, ``chip`` or ``runtime``."""
_SHORT: Final = {"float8_e4m3": "float8", "int8": "int8", "int4": "int4", "mxfp4": "int4"}


def stream_of(weight_dtype: str) -> str:
    """The constant that says how fast weights of a format are streamed."""
    return f"stream_{_SHORT.get(weight_dtype, '16bit')}"


def matmul_of(act_dtype: str) -> str:
    """The constant that says how much of the peak matmuls of a format reach."""
    return f"matmul_{_SHORT.get(act_dtype, '16bit')}"


def runtime_of(point: Point) -> Runtime:
    """The runtime that a prediction is for: the point's own, else the best."""
    return shipped(BEST) if point.runtime is None else point.runtime


def constants_of(point: Point) -> Constants:
    """The constants of the point's chip and of its runtime.

    Raises:
        Unsupported: a cpu, which has neither datasheet nor calibration, or a chip with a power limit.
        ShardbenchError: the runtime has a constant that is not known or outside its bounds.
    """
    return of(point.chip, runtime_of(point))


def of(chip: Chip, runtime: Runtime) -> Constants:
    """The constants of a chip and a runtime: what the runtime does not state is that of the best one for the kind.

    Raises:
        Unsupported: a cpu, which has neither datasheet nor calibration, or a chip with a power limit.
        ShardbenchError: the runtime has a constant that is not known or outside its bounds.
    """
    if chip.kind not in CALIBRATED_FOR:
        raise Unsupported(f"hw={chip.name} has no datasheet, so nothing can be predicted for it; measure it instead")
    chip.check_full_power()
    name = chip.name.partition("+")[0]
    return _constants(calibrated_name(chip), chip.kind, name, tuple(sorted(_stated(runtime, chip.kind, name).items())))


@cache
def _constants(file: str, kind: str, chip: str, stated: tuple[tuple[str, float], ...]) -> Constants:
    best = shipped(BEST_OF[kind]).values(chip)
    return from_mapping({**load(file), **best, **dict(stated)})


def _stated(runtime: Runtime, kind: str, chip: str) -> dict[str, float]:
    """What a runtime states; of ``best`` on a kind of chip where another is the best, only what was changed in it."""
    values = runtime.values(chip)
    if runtime.name.partition("+")[0] != BEST or BEST_OF[kind] == BEST:
        return values
    ours = shipped(BEST).values(chip)
    return {name: value for name, value in values.items() if value != ours.get(name)}


def calibrated_name(chip: Chip) -> str:
    """The file of the constants that ``chip`` takes: its own, or the medians of its kind."""
    name = chip.name.partition("+")[0]
    return name if _file(name).is_file() else CALIBRATED_FOR[chip.kind]


@cache
def provenance(chip_name: str) -> Mapping[str, Any]:
    """Where the constants of ``constants/NAME.yaml`` come from, for a row's details.

    ``rows`` counts the rows that set them, by source; ``error_without_source`` is, for each of them, the mean relative
    error on its rows of constants that were fitted without them.
    """
    content = stored(chip_name)
    left_out = content.get("leave_one_source_out") or {}
    return {
        "constants": chip_name,
        "rows": dict(content.get("rows") or {}),
        "error_without_source": {source: errors["mape"] for source, errors in left_out.items()},
    }


@cache
def load(chip_name: str) -> Mapping[str, float]:
    """The constants of ``constants/NAME.yaml``: constant → value."""
    return {name: float(value) for name, value in stored(chip_name)["constants"].items()}


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
    except TypeError as error:
        name = str(error).rpartition(": ")[2]
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
