"""Which packages compile for a kind of chip, and whether they are installed."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from engines.core.chip import Chip
from engines.core.errors import ShardbenchError
from engines.core.versions import versions_of


@dataclass(frozen=True, slots=True)
class CompilerPackage:
    """A compiler: the ``modules`` that it needs, the ``libraries`` whose versions determine its output."""

    modules: tuple[str, ...]
    libraries: tuple[str, ...]
    extra: str

    @property
    def remedy(self) -> str:
        """The command that installs it."""
        return f"pip install 'shardbench[{self.extra}]'"

    def told(self) -> str:
        """The compiler itself, with its version."""
        library = self.libraries[-1]
        return f"{library} {versions_of([library]).get(library)}"


class CompilerMissing(ShardbenchError):
    """The compiler for a chip is not installed."""


TPU: Final = CompilerPackage(("jax", "libtpu"), ("jax", "jaxlib", "libtpu"), "tpu")
GPU: Final = CompilerPackage(
    ("jax", "jax_cuda12_plugin", "jax_plugins.xla_cuda12"),
    ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda12-pjrt"),
    "gpu-compiler",
)


def compiler_for(chip: Chip) -> CompilerPackage:
    """The compiler for a chip's kind; the TPU's for a kind that has none, whose target is then unsupported."""
    return GPU if chip.kind == "gpu" else TPU


def check_installed(chip: Chip) -> None:
    """Check that the compiler for a chip is installed.

    Raises:
        CompilerMissing: it is not; names the command that installs it.
    """
    compiler = compiler_for(chip)
    for module in compiler.modules:
        if not _is_installed(module):
            raise CompilerMissing(f"engine=compiled: needs {module}, which is not installed; {compiler.remedy}")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing too
        return False
