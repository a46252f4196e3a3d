"""What the engine asks of a target, and which kind of target a slice is."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Protocol

from engines.core.chip import Chip
from engines.core.errors import ShardbenchError
from engines.core.point import Point
from engines.core.slice import MeshShape, Slice

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from engines.compiled.cost.base import CostModel


@dataclass(frozen=True, slots=True)
class CompilerPackage:
    """What compiles for a kind of chip: ``modules`` that must be there, ``libraries`` whose versions decide."""

    modules: tuple[str, ...]
    libraries: tuple[str, ...]
    extra: str

    @property
    def remedy(self) -> str:
        """What installs it."""
        return f"pip install 'shardbench[{self.extra}]'"


class CompilerMissing(ShardbenchError):
    """The compiler for a chip is not installed."""


TPU: Final = CompilerPackage(("jax", "libtpu"), ("jax", "jaxlib", "libtpu"), "tpu")
GPU: Final = CompilerPackage(
    ("jax", "jax_cuda12_plugin", "jax_plugins.xla_cuda12"),
    ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda12-pjrt"),
    "gpu-compiler",
)


class Target(Protocol):
    """Devices as a compiler is told of them. Its ``repr`` is part of the key of a compiled program."""

    @property
    def topology_name(self) -> str:
        """What a row calls the devices."""
        ...

    @property
    def cores(self) -> int:
        """Devices of one chip."""
        ...

    @property
    def device_mesh(self) -> MeshShape:
        """Shape of the mesh of devices that the model is cut over."""
        ...

    @property
    def options(self) -> Mapping[str, str | bool]:
        """Options with which every program is compiled."""
        ...

    def asked(self, point: Point) -> Point:
        """The point with its own words for a layout put into this project's.

        Raises:
            Unsupported: what it asks cannot be compiled for this target.
        """
        ...

    def make_mesh(self) -> "Mesh":
        """The mesh x, y, z over the devices.

        Raises:
            Unsupported: the compiler refuses the target.
        """
        ...

    def machine(self, chip: Chip) -> "CostModel":
        """The machine that its programs are timed on.

        Raises:
            Unsupported: the datasheet or the constants lack a figure.
        """
        ...

    def too_large(self, memory: Mapping[str, float]) -> str | None:
        """One sentence where a program that the compiler passed needs more memory than a device has."""
        ...


def compiler_for(chip: Chip) -> CompilerPackage:
    """The compiler for a chip's kind; chips of no kind known here are left to the TPU's to refuse."""
    return GPU if chip.kind == "gpu" else TPU


def check_installed(chip: Chip) -> None:
    """Check that the compiler for a chip is there.

    Raises:
        CompilerMissing: it is not; the sentence tells what installs it.
    """
    compiler = compiler_for(chip)
    for module in compiler.modules:
        if not _is_here(module):
            raise CompilerMissing(f"engine=compiled: needs {module}, which is not installed; {compiler.remedy}")


def target_of(slice_: Slice) -> Target:
    """Describe a slice to its compiler.

    Raises:
        Unsupported: its chip is none that a compiler here knows, or there are more of them than one target has.
    """
    if slice_.chip.kind == "gpu":
        from engines.compiled.target.gpu import gpu_target_of

        return gpu_target_of(slice_)
    from engines.compiled.target.tpu import tpu_target_of

    return tpu_target_of(slice_)


def _is_here(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing too
        return False
