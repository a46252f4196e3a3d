"""StableHLO in a file as a stage that can be compiled, as JAX's own lowered functions are."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from engines.core.errors import InvalidRequest
from engines.core.text import sentence

if TYPE_CHECKING:
    from jax.sharding import Mesh

_MESH: Final = re.compile(r"sdy\.mesh @\w+ = <\[(.*?)\]>")
_AXIS: Final = re.compile(r'"(\w+)"=(\d+)')
PORTABLE: Final = "vhlo."
"""The versioned dialect of what is serialised to be kept."""
PARTITIONS: Final = "mhlo.num_partitions"
REMEDY: Final = "use a file that jax.export wrote, or StableHLO as text or bytecode"


def exported_of(path: str, content: bytes) -> Any:
    """The :class:`jax.export.Exported` of serialised bytes; None if they are StableHLO itself.

    Raises:
        InvalidRequest: ``flatbuffers``, which reads it, is not installed.
    """
    if not content.strip():
        raise InvalidRequest("stablehlo", path, "is empty", REMEDY)
    if content.startswith(b"ML\xefR") or content.lstrip()[:1] in (b"#", b"m", b"b", b"/"):
        return None
    try:
        from jax import export

        return export.deserialize(bytearray(content))
    except ImportError:
        problem = "is an export, or no program at all; exports are read by flatbuffers, which is not installed"
        raise InvalidRequest("stablehlo", path, problem, "pip install 'shardbench[export]'") from None
    except Exception as error:
        reason = sentence(f"{type(error).__name__}: {error}")
        raise InvalidRequest("stablehlo", path, f"is neither StableHLO nor an export ({reason})", REMEDY) from None


@dataclass(frozen=True, slots=True)
class StableHlo:
    """A module for ``devices``: what the compiler needs of :class:`jax.stages.Lowered`."""

    text: str
    bytecode: bytes
    devices: tuple[Any, ...]

    def as_text(self) -> str:
        """The program."""
        return self.text

    def compile(self, compiler_options: dict[str, Any] | None = None) -> Any:
        """The executable, with ``as_text`` and ``memory_analysis``.

        Raises:
            JaxRuntimeError: the compiler rejects it.
        """
        import numpy as np
        from jax._src import compiler
        from jax._src.interpreters import mlir
        from jax._src.lib import xla_client  # type: ignore[attr-defined]
        from jax._src.lib.mlir import ir  # type: ignore[attr-defined]

        options = compiler.get_compile_options(
            num_replicas=1,
            num_partitions=len(self.devices),
            device_assignment=np.arange(len(self.devices)).reshape(1, -1),
            env_options_overrides=dict(compiler_options or {}),
        )
        options.executable_build_options.use_spmd_partitioning = True
        options.executable_build_options.use_shardy_partitioner = "sdy." in self.text
        with mlir.make_ir_context():
            found = self.devices[0].client.compile(
                ir.Module.parse(self.bytecode),
                executable_devices=xla_client.DeviceList(self.devices),
                compile_options=options,
            )
        return _Executable(found)


@dataclass(frozen=True, slots=True)
class _Executable:
    found: Any

    def as_text(self) -> str:
        return "\n\n".join(str(module.to_string()) for module in self.found.hlo_modules())

    def memory_analysis(self) -> Any:
        return self.found.get_compiled_memory_stats()


@dataclass(frozen=True, slots=True)
class Module:
    """StableHLO that can be parsed: ``partitions`` is the number of devices, ``axes`` the mesh that it names, or {}."""

    text: str
    bytecode: bytes
    partitions: int
    axes: Mapping[str, int]


def module_of(path: str, content: bytes) -> Module:
    """A module in text, bytecode or the portable form in which an export holds it.

    Raises:
        InvalidRequest: it cannot be parsed.
    """
    from jax._src.interpreters import mlir
    from jax._src.lib.mlir import ir  # type: ignore[attr-defined]
    from jax._src.lib.mlir.dialects import hlo  # type: ignore[attr-defined]

    with mlir.make_ir_context() as context:
        try:
            module = ir.Module.parse(content)
            if PORTABLE in str(module):
                module = hlo.deserialize_portable_artifact(context, content)
        except Exception as error:
            raise InvalidRequest("stablehlo", path, f"cannot be parsed ({sentence(str(error))})", REMEDY) from None
        attributes = module.operation.attributes
        stated = ir.IntegerAttr(attributes[PARTITIONS]).value if PARTITIONS in attributes else 1
        text = str(module)
        return Module(text, mlir.module_to_bytecode(module), stated, _axes_in(text))


def _axes_in(text: str) -> dict[str, int]:
    named = _MESH.search(text)
    return {name: int(size) for name, size in _AXIS.findall(named[1])} if named else {}


def stages_of(module: Module, mesh: "Mesh") -> StableHlo:
    """A module for the devices of a mesh, or for one of them where it is not partitioned."""
    return StableHlo(module.text, module.bytecode, tuple(mesh.devices.flat)[: module.partitions])
