"""A chip: its datasheet, the slices it comes in, and what drivers and compilers call it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, TypeVar

from engines.core.dtypes import ACTIVATION_DTYPES
from engines.core.errors import InvalidRequest, Unsupported
from engines.core.typed import check_types, types_of

ChipKind = Literal["tpu", "gpu", "cpu"]
Figure = TypeVar("Figure")


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceShapes:
    """Which slices of a TPU exist, and which of their axes close into a ring.

    ``shapes`` are slices [X ≤ Y (≤ Z)] of one block; with ``cube`` = c, every multiple of c along all three axes is a
    slice too. An axis whose size is a multiple of ``ring_multiple`` wraps around.
    """

    shapes: tuple[tuple[int, ...], ...]
    ring_multiple: int
    cube: int | None = None

    def __post_init__(self) -> None:
        shapes = tuple(tuple(shape) for shape in self.shapes)
        object.__setattr__(self, "shapes", shapes)
        for shape in shapes:
            if len(shape) not in (2, 3) or list(shape) != sorted(shape) or shape[0] < 1:
                raise InvalidRequest("hw.slices.shapes", shape, "is not a slice", "give [X, Y] or [X, Y, Z], ascending")
        for key in ("ring_multiple", "cube"):
            value = getattr(self, key)
            if value is not None and value < 2:
                raise InvalidRequest(f"hw.slices.{key}", value, "must be an integer ≥ 2", "give the number of chips")


@dataclass(frozen=True, slots=True, kw_only=True)
class XlaTpu:
    """A TPU as XLA's TPU compiler knows it.

    ``name`` is the prefix of its topology names (``v4`` in ``v4:4x4x4``), ``config`` its chip configuration where it
    has several, ``cores`` the devices of one chip. Above ``overlapped_all_to_all_chips`` chips the compiler rejects an
    all-to-all that overlaps other work, and a ragged one; None is no limit. ``fixed_cycles`` is what the compiler adds
    to its estimate of every instruction, whatever its size.
    """

    name: str
    config: str | None = None
    cores: int = 1
    overlapped_all_to_all_chips: int | None = None
    fixed_cycles: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuda:
    """A GPU as CUDA describes it.

    ``multiprocessors`` (SMs) are those of the product, not of the whole die. Of one SM, ``tensor_flops_per_cycle`` is
    the dense float16 rate of its tensor cores, ``float32_lanes`` the float32 results per cycle outside them,
    ``shared_memory_bytes`` its shared memory and ``shared_memory_bytes_per_block`` what one block may opt in to.
    """

    compute_capability: tuple[int, int]
    multiprocessors: int
    l2_bytes: int
    float32_lanes: int
    tensor_flops_per_cycle: int
    shared_memory_bytes: int
    shared_memory_bytes_per_block: int

    def __post_init__(self) -> None:
        major, minor = self.compute_capability
        object.__setattr__(self, "compute_capability", (major, minor))


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkConstants:
    """What a datasheet does not state of a link: the share of its bandwidth that payload gets, seconds a hop and
    seconds to start a collective.
    """

    link_efficiency: float
    hop_s: float
    launch_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """A chip where it is rented: ``host_chips`` of them are in one virtual machine.

    ``gke`` is Google Kubernetes Engine's label of its nodes; ``xpk`` and ``skypilot`` begin those programs' names of a
    slice, which end with its chips times ``counted_a_chip`` (v4-128 has 64). None: not to be had there.
    """

    host_chips: int
    gke: str | None = None
    xpk: str | None = None
    skypilot: str | None = None
    counted_a_chip: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """One chip; every field is a key of ``conf/hw/*.yaml``, where its source stands beside it.

    Bandwidths are one direction, in bytes per second. A TPU has ``torus_dims`` axes with two links each
    (``link_bytes_per_s`` a link) and comes in ``slices``. A GPU reaches the ``node_size`` GPUs of its NVLink/NVSwitch
    domain at ``node_bytes_per_s`` and all others at ``network_bytes_per_s``. A cpu has no datasheet: its peaks are
    measured in the run that needs them, so the figures are None. Host memory reaches a chip at
    ``host_link_bytes_per_s``, and the drives that serve it read ``nvme_bytes_per_s``: what a point asks of neither
    (``offload``) does not change with them.

    ``device_names`` are the names that the driver, JAX and PyTorch give to a device of this chip. ``xla`` and ``cuda``
    describe a TPU and a GPU to XLA's compiler; without them ``engine=compiled`` does not support the chip.
    ``link_constants`` replace the defaults of ``engine=compiled`` where they were measured on this chip.
    ``cloud`` says what job files call it.

    ``power_limit_w`` is what a GPU's driver is told to stay below, where that is less than the board's own limit. No
    datasheet says how much slower the chip is then: it is measured or imported, and nothing is predicted for it.
    ``tdp_w`` is the thermal design power, by which energy is predicted; no time depends on it.
    """

    name: str
    kind: ChipKind
    peak_flops_per_s: Mapping[str, float]
    hbm_bytes: float | None
    hbm_bytes_per_s: float | None
    clock_hz: float | None = None
    torus_dims: int = 0
    max_chips: int = 1
    link_bytes_per_s: float | None = None
    slices: SliceShapes | None = None
    node_size: int = 1
    node_bytes_per_s: float | None = None
    network_bytes_per_s: float | None = None
    host_link_bytes_per_s: float | None = None
    nvme_bytes_per_s: float | None = None
    device_names: tuple[str, ...] = ()
    xla: XlaTpu | None = None
    cuda: Cuda | None = None
    link_constants: LinkConstants | None = None
    power_limit_w: float | None = None
    tdp_w: float | None = None
    cloud: Cloud | None = None
    sources: Mapping[str, str]

    def __post_init__(self) -> None:
        for dtype, value in self.peak_flops_per_s.items():
            if value <= 0:
                raise InvalidRequest(f"hw.peak_flops_per_s.{dtype}", value, "must be > 0", "give FLOP/s")
        for name in (
            *("hbm_bytes", "hbm_bytes_per_s", "clock_hz", "link_bytes_per_s", "node_bytes_per_s", "tdp_w"),
            *("host_link_bytes_per_s", "nvme_bytes_per_s"),
        ):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InvalidRequest(f"hw.{name}", value, "must be > 0", "give the datasheet's figure, or null")
        if self.power_limit_w is not None:
            self._check_power_limit(self.power_limit_w)
        if self.kind == "tpu":
            self._check_torus()

    def _check_power_limit(self, watts: float) -> None:
        if not isinstance(watts, (int, float)) or isinstance(watts, bool) or not watts > 0:
            raise InvalidRequest("hw.power_limit_w", watts, "must be a number > 0", "give watts, such as 450")
        if self.kind != "gpu":
            raise InvalidRequest("hw.power_limit_w", watts, f"is a GPU's setting and hw={self.name}", "leave it out")

    def _check_torus(self) -> None:
        if self.torus_dims not in (2, 3):
            raise InvalidRequest("hw.torus_dims", self.torus_dims, "is not a TPU interconnect", "use 2 or 3")
        if self.slices is None:
            raise InvalidRequest("hw.slices", None, "is missing for a TPU", "list shapes as conf/hw/tpu-v4.yaml does")
        for shape in self.slices.shapes:
            if len(shape) != self.torus_dims:
                problem = f"has {len(shape)} axes, and torus_dims={self.torus_dims}"
                raise InvalidRequest("hw.slices.shapes", shape, problem, "make them agree")

    @classmethod
    def from_config(cls, content: Mapping[str, Any]) -> Self:
        """The chip of a configuration file's plain values, its parts as mappings.

        Raises:
            InvalidRequest: a key is missing, unknown or wrong.
        """
        remedy = "compare it with conf/hw/tpu-v4.yaml"
        check_types("hw.", content, types_of(cls), remedy)
        for key, part in PARTS.items():
            if content.get(key) is not None:
                check_types(f"hw.{key}.", content[key], types_of(part), remedy)
        try:
            parts = {key: part(**content[key]) for key, part in PARTS.items() if content.get(key) is not None}
            names = tuple(content.get("device_names") or ())
            return cls(**{**content, **parts, "device_names": names})
        except (TypeError, ValueError) as error:
            reason = str(error).replace("__init__() ", "")
            raise InvalidRequest("hw", content.get("name"), reason, remedy) from None

    def __hash__(self) -> int:
        # The mappings cannot be hashed; equality still compares every figure.
        return hash((self.name, self.kind, self.hbm_bytes, self.hbm_bytes_per_s))

    def require(self, key: str, figure: Figure | None) -> Figure:
        """The figure of ``key``, which an engine cannot do without.

        Raises:
            Unsupported: the chip's file does not state it.
        """
        if figure is None:
            remedy = f"add it to conf/hw/{self.name}.yaml, or give +hw.{key}="
            raise Unsupported(f"hw={self.name}: {key} is not known; {remedy}")
        return figure

    def check_full_power(self) -> None:
        """Check that the chip runs as its datasheet says.

        Raises:
            Unsupported: it has a power limit, and no datasheet says how much slower it is then.
        """
        if self.power_limit_w is not None:
            raise Unsupported(
                f"hw.power_limit_w={self.power_limit_w:g}: no datasheet says how fast a chip is under a power limit, "
                "so nothing is predicted for it; measure it, or leave hw.power_limit_w out"
            )

    def peak(self, dtype: str) -> float:
        """Dense peak in FLOP/s for matmuls whose activations are ``dtype``.

        Raises:
            Unsupported: the datasheet states no peak for that dtype.
        """
        try:
            return self.peak_flops_per_s[dtype]
        except KeyError:
            known = ", ".join(self.peak_flops_per_s) or "none"
            message = f"hw={self.name} states no peak for {dtype} (it states: {known})"
            raise Unsupported(message + self._instead_of(dtype)) from None

    def check_matmul(self, dtype: str) -> None:
        """Check that the chip multiplies activations of 8 bits. A cpu, which converts them, takes any.

        Raises:
            Unsupported: the datasheet states no peak for that dtype.
        """
        if dtype not in ACTIVATION_DTYPES and self.kind != "cpu":
            self.peak(dtype)

    def _instead_of(self, dtype: str) -> str:
        """The remedy for an act_dtype that the chip does not multiply."""
        wide = next((each for each in ("bfloat16", "float16") if each in self.peak_flops_per_s), None)
        if wide is None:
            return "; use a chip with that peak"
        if dtype in ACTIVATION_DTYPES:
            return f"; use act_dtype={wide}, or a chip with that peak"
        return f"; use act_dtype={wide}, which stores weights as {dtype} and converts them, or a chip with that peak"


PARTS: Final[Mapping[str, type[SliceShapes | XlaTpu | Cuda | LinkConstants | Cloud]]] = {
    "slices": SliceShapes,
    "xla": XlaTpu,
    "cuda": Cuda,
    "link_constants": LinkConstants,
    "cloud": Cloud,
}
"""Key of a chip → the class of the object that it holds."""


def cuda_of(chip: Chip) -> Cuda:
    """The figures by which a GPU is described to XLA's CUDA compiler.

    Raises:
        Unsupported: the chip's file has none, as for a GPU that CUDA does not run on.
    """
    if chip.cuda is None:
        raise Unsupported(
            f"hw={chip.name}: XLA's CUDA compiler, the only one here for GPUs, needs figures that its file does not "
            "state; use engine=analytic, or add cuda as in conf/hw/h100-80gb.yaml if CUDA runs on it"
        )
    return chip.cuda


def tensor_core_clock_hz(chip: Chip, cuda: Cuda) -> float:
    """The clock at which the tensor cores of all multiprocessors reach the datasheet's float16 peak.

    Raises:
        Unsupported: the datasheet states no float16 peak.
    """
    return chip.peak("float16") / float(cuda.multiprocessors * cuda.tensor_flops_per_cycle)
