"""Programs in files: scheduled HLO as a compiler dumped it, and StableHLO or what ``jax.export`` wrote."""

import gzip
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from engines.compiled.compile.cache import CompiledProgram
from engines.compiled.program.dump import CYCLES, DUMP_AGAIN, check_cores, check_told, dumped_beside, module_in
from engines.compiled.program.estimate import Settings, estimate_compiled, estimate_lowered
from engines.compiled.program.lowering import Lowered, lower
from engines.compiled.program.placement import Axes, Placement, absent_mesh, check_axes, in_order, placement_of
from engines.compiled.program.result import ProgramEstimate
from engines.compiled.program.stablehlo import exported_of, module_of, stages_of
from engines.compiled.target.select import target_of
from engines.compiled.target.slices import several_slices
from engines.core.digest import digest
from engines.core.errors import InvalidRequest, ShardbenchError, Unsupported
from engines.core.slice import Slice
from engines.core.text import sentence

PLATFORMS: Final = {"tpu": "tpu", "gpu": "cuda"}
"""Kind of chip → what ``jax.export`` calls it."""
GZIP: Final = b"\x1f\x8b"
HLO_TEXT: Final = b"HloModule "
LAST_FILE: Final = "use the last file of its module in the dump, …after_codegen.txt or .hlo.pb of the TPU compiler"
MARKS: Final = {
    "tpu": ("T(8,128)", "T(", CYCLES, "tpu_custom_call"),
    "cpu": ("xla_cpu", "outer_dimension_partitions", "__onednn", "$cpu"),
    "gpu": ("__cublas", "fusion_backend_config", "__cudnn", "gemm_backend_config"),
}
"""Kind of chip → what is in a text that its compiler scheduled; a TPU's has tiled layouts, cycles or its kernels."""


def estimate_hlo(
    path: str, slice_: Slice, axes: Axes | None, settings: Settings, name: str | None = None
) -> ProgramEstimate:
    """Time scheduled HLO: a text, or the proto of a dump, plain or gzipped.

    ``path`` may be the folder of a dump of one module. A dump says for which slice, and for which device of it each
    partition, was compiled. A text alone does not: with ``axes`` its partitions are placed as :func:`jax.make_mesh`
    places that mesh, else in the order of the slice's torus.

    Raises:
        InvalidRequest: the file cannot be read, is no scheduled HLO of this chip's compiler, or needs another slice.
        ShardbenchError: a line of it cannot be read; names the line.
    """
    path = module_in(path) if Path(path).is_dir() else path
    text = _hlo_text(path)
    first = text[: text.find("\n")] if "\n" in text else text
    _check_compiler(path, text, slice_)
    told = dumped_beside(path)
    if told is not None:
        check_told(path, told, slice_)
        slice_ = Slice(slice_.chip, told.shape)
    else:
        check_cores(path, text, slice_)
    devices = _number(first, "num_partitions=") * _number(first, "replica_count=")
    whole = slice_.num_chips * (slice_.chip.xla.cores if slice_.chip.xla is not None else 1)
    if devices > whole:
        raise InvalidRequest(
            "hlo", path, f"runs on {devices} devices, and {slice_.num_chips} {slice_.chip.name} have {whole}",
            "use as many chips as it was compiled for",
        )  # fmt: skip
    placement = _placement(slice_, axes, devices, told.devices if told is not None else (), settings.num_slices)
    compiled = CompiledProgram(text=text, memory={}, compile_s=0.0)
    called = name or first.split()[1].rstrip(",")
    try:
        return estimate_compiled(called, compiled, slice_, placement, settings, digest(text), {})
    except (InvalidRequest, Unsupported):
        raise
    except ShardbenchError as error:
        raise ShardbenchError(f"hlo={path}: {error}; dump it again, or use another file") from error


def estimate_stablehlo(
    path: str, slice_: Slice, axes: Axes | None, settings: Settings, name: str | None = None
) -> ProgramEstimate:
    """Compile and time what ``jax.export`` serialised, or StableHLO as text or bytecode.

    Without ``axes`` the mesh is the one that the program names, else the slice's own.

    Raises:
        InvalidRequest: the file cannot be read or is none of these, was exported for another kind of chip, or needs as
            many devices as the slice has not.
        ShardbenchError: the compiler rejects it.
    """
    content = _read("stablehlo", path)
    called = name or Path(path).name.partition(".")[0]
    exported = exported_of(path, content)
    module = module_of(path, content if exported is None else exported.mlir_module_serialized)
    devices = slice_.num_chips * settings.num_slices * (slice_.chip.xla.cores if slice_.chip.xla is not None else 1)
    if module.partitions not in (1, devices):
        raise InvalidRequest(
            "stablehlo", path, f"is partitioned over {module.partitions} devices, and the slice has {devices}",
            "use as many chips",
        )  # fmt: skip
    own = module.axes if math.prod(module.axes.values()) == devices else None
    mesh = absent_mesh(slice_, axes or own or None, num_slices=settings.num_slices)
    if exported is None:
        return estimate_lowered(Lowered(name=called, stages=stages_of(module, mesh), mesh=mesh), slice_, settings)
    platform = PLATFORMS[slice_.chip.kind]
    if platform not in exported.platforms:
        raise InvalidRequest(
            "stablehlo", path, f"was exported for {', '.join(exported.platforms)}, and not for {platform}",
            f"export it with platforms=['{platform}']",
        )  # fmt: skip
    arguments, keywords = _arguments(exported, mesh)
    lowered = lower(exported.call, arguments, mesh, keywords=keywords, name=called)
    return estimate_lowered(lowered, slice_, settings)


def _arguments(exported: Any, mesh: Any) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Shapes of the exported function's arguments, split over the mesh as they were."""
    import jax

    shardings = exported.in_shardings_jax(mesh) if hasattr(exported, "in_shardings_jax") else exported.in_shardings_hlo
    flat = [
        jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=sharding)
        for each, sharding in zip(exported.in_avals, shardings, strict=True)
    ]
    arguments, keywords = jax.tree.unflatten(exported.in_tree, flat)
    return tuple(arguments), keywords


def _hlo_text(path: str) -> str:
    content = _read("hlo", path)
    if not content.strip():
        raise InvalidRequest("hlo", path, "is empty", DUMP_AGAIN)
    if content.lstrip()[: len(HLO_TEXT)] == HLO_TEXT:
        text = content.decode(errors="replace").lstrip()
        if not text.rstrip().endswith("\n}"):
            raise InvalidRequest(
                "hlo", path, "ends within a computation, so it is cut off", "copy the whole file again"
            )
        return text
    try:
        content.decode()
    except UnicodeDecodeError:
        return _text_of_proto(path, content)
    raise InvalidRequest("hlo", path, "does not begin with HloModule, so it is no HLO", "use a file of --xla_dump_to")


def _text_of_proto(path: str, content: bytes) -> str:
    """The text of a serialised ``HloProto``, or of its module alone."""
    from jax._src.lib import xla_client  # type: ignore[attr-defined]

    reason = ""
    for serialised in (_first_message(content), content):
        if serialised is None:
            continue
        try:
            return str(xla_client.XlaComputation(serialised).get_hlo_module().to_string())
        except Exception as error:  # another message, or a truncated one
            reason = sentence(str(error))
    raise InvalidRequest(
        "hlo", path, f"is neither HLO text nor a proto that can be read ({reason or 'truncated'})",
        "use a file of --xla_dump_to with --xla_dump_hlo_as_text or --xla_dump_hlo_as_proto",
    )  # fmt: skip


def _first_message(content: bytes) -> bytes | None:
    """Field 1 of a protobuf message, which in an ``HloProto`` is the module; None if the bytes hold none in full."""
    if not content or content[0] != (1 << 3 | 2):
        return None
    length = shift = 0
    for place, byte in enumerate(content[1:11], 1):
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            end = place + 1 + length
            return content[place + 1 : end] if end <= len(content) else None
    return None


def _check_compiler(path: str, text: str, slice_: Slice) -> None:
    """Check that the compiler of the slice's chip scheduled the text.

    Raises:
        InvalidRequest: another one did.
    """
    if "is_scheduled=true" not in text[: text.find("\n")]:
        raise InvalidRequest(
            "hlo", path, "lacks is_scheduled=true, so its lines are not in the order of issue",
            LAST_FILE,
        )  # fmt: skip
    kinds = ((kind, marks) for kind, marks in MARKS.items() if any(mark in text for mark in marks))
    kind, _ = next(kinds, ("cpu", ()))
    if kind != slice_.chip.kind:
        raise InvalidRequest(
            "hlo", path, f"was compiled for a {kind.upper()}, and {slice_.chip.name} is a {slice_.chip.kind.upper()}",
            "use a dump of this chip's compiler, or give the function",
        )  # fmt: skip
    if kind == "tpu" and CYCLES not in text and " fusion(" in text:
        raise InvalidRequest("hlo", path, "states no cycles, as before code is generated", LAST_FILE)


def _placement(slice_: Slice, axes: Axes | None, devices: int, places: tuple[int, ...], num_slices: int) -> Placement:
    """Where partitions stand: at ``places`` if they are known, else as a mesh of these axes would place them."""
    if axes is not None:
        whole = slice_.num_chips * (slice_.chip.xla.cores if slice_.chip.xla is not None else 1)
        check_axes(axes, whole * num_slices, slice_)
    if len(places) == devices:
        return Placement(axes=dict(axes) if axes else {"devices": devices}, places=places)
    if axes is None:
        return in_order(None, devices)
    target = target_of(slice_) if num_slices == 1 else several_slices(slice_, num_slices)
    return placement_of(absent_mesh(slice_, axes, num_slices=num_slices), target)


def _number(line: str, before: str) -> int:
    _, found, rest = line.partition(before)
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return int(digits) if found and digits else 1


def _read(key: str, path: str) -> bytes:
    try:
        content = Path(path).read_bytes()
        return gzip.decompress(content) if content.startswith(GZIP) else content
    except (OSError, EOFError, zlib.error, ValueError) as error:
        reason = sentence(getattr(error, "strerror", None) or str(error))
        remedy = "use a file of --xla_dump_to" if key == "hlo" else "use a file that jax.export wrote, or StableHLO"
        raise InvalidRequest(key, path, f"cannot be read ({reason})", remedy) from None
