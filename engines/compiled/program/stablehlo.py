"""StableHLO in a file as a stage that can be compiled, as JAX's own lowered functions are."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from engines.core.errors import InvalidRequest
from engines.core.text import sentence

if TYPE_CHECKING:
    from jax.sharding import Mesh

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


def stages_of(path: str, content: bytes, mesh: "Mesh") -> StableHlo:
    """A module in text or bytecode, for the devices of a mesh.

    Raises:
        InvalidRequest: it cannot be parsed, or was partitioned for another number of devices.
    """
    from jax._src.interpreters import mlir
    from jax._src.lib.mlir import ir  # type: ignore[attr-defined]

    with mlir.make_ir_context():
        try:
            module = ir.Module.parse(content)
        except Exception as error:
            reason = sentence(str(error))
            raise InvalidRequest("stablehlo", path, f"cannot be parsed ({reason})", REMEDY) from None
        attributes = module.operation.attributes
        stated = ir.IntegerAttr(attributes[PARTITIONS]).value if PARTITIONS in attributes else 1
        text, bytecode = str(module), mlir.module_to_bytecode(module)
    devices = tuple(mesh.devices.flat)
    if stated not in (1, len(devices)):
        raise InvalidRequest(
            "stablehlo", path, f"is partitioned over {stated} devices, and the slice has {len(devices)}",
            "use as many chips",
        )  # fmt: skip
    return StableHlo(text, bytecode, devices[:stated])
