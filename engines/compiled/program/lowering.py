"""Tracing a user's function for devices that are not there, from shapes alone."""

import hashlib
import math
import os
import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engines.compiled.program.stablehlo import StableHlo
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.text import sentence, shortened

if TYPE_CHECKING:
    from jax.sharding import Mesh

ROOT: Final = Path(__file__).parents[3]
OWN_FOLDERS: Final = (ROOT / "bench", ROOT / "engines" / "compiled", ROOT / "engines" / "host")
_INDIVISIBLE: Final = re.compile(r"array axis (\d+) is partitioned (\d+) times, but the dimension size is (\d+)")


class DoesNotTrace(ShardbenchError):
    """JAX cannot trace the function with these arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """A program before compilation: ``stages`` is JAX's (:class:`jax.stages.Lowered`), ``mesh`` what it runs on."""

    name: str
    stages: Any
    mesh: "Mesh"


def lower(
    function: Any,
    arguments: Sequence[Any],
    mesh: "Mesh",
    *,
    keywords: Mapping[str, Any] | None = None,
    in_shardings: Any = None,
    name: str | None = None,
) -> Lowered:
    """Trace a jitted or plain function. Of arrays only shapes, dtypes and partition specs are used.

    ``in_shardings`` is a pytree of partition specs (or of shardings), a prefix of ``arguments``, as :func:`jax.jit`
    takes it; an argument without one has that of its own array, and else the compiler's choice. The function is traced
    with ``mesh`` as JAX's mesh (:func:`jax.set_mesh`).

    Raises:
        InvalidRequest: ``function`` cannot be called, or a sharding does not fit its argument.
        DoesNotTrace: tracing raises; names the exception and the line of the function that raised it.
    """
    import jax

    name = name or name_of(function)
    if not callable(function):
        raise InvalidRequest("function", name, "is not a function", "give a function, jitted or not")
    _leave_out_own_frames()
    jitted = function if hasattr(function, "lower") else jax.jit(function)
    placed = _placed(tuple(arguments), in_shardings, mesh)
    given = {key: _placed(value, None, mesh, key) for key, value in (keywords or {}).items()}
    try:
        with jax.sharding.set_mesh(mesh):
            stages = jitted.lower(*placed, **given)
    except ShardbenchError:
        raise
    except Exception as error:
        reason = shortened(first_line(f"{type(error).__name__}: {_told(error)}"))
        raise DoesNotTrace(
            f"function={name}: does not trace{_raised_at(error)}: {reason.rstrip('.')}; correct it, or call it with "
            "other arguments"
        ) from error
    while not isinstance(stages, jax.stages.Lowered) and hasattr(stages, "lowered"):
        stages = stages.lowered  # Flax's jit wraps JAX's
    return Lowered(name=name, stages=stages, mesh=mesh)


def locations(stages: Any) -> str:
    """A digest of a traced program with the places in the source that its operations come from.

    The compiled text carries them: a text from before an edit, or from another folder, names lines that are not there.
    """
    text = stages.bytecode if isinstance(stages, StableHlo) else stages.as_text(debug_info=True).encode()
    return hashlib.sha256(text).hexdigest()


@cache
def _leave_out_own_frames() -> None:
    """Tell JAX that the code that asks for a program is none of its source lines, as it does for its own."""
    from jax._src import source_info_util

    for folder in OWN_FOLDERS:
        source_info_util.register_exclusion(f"{folder}{os.sep}")


def first_line(text: str) -> str:
    """The first line of a message, and the next that it announces: JAX's say the cause there, and advice below."""
    lines = [each.strip() for each in text.splitlines() if each.strip()] or [""]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def _told(error: Exception) -> str:
    """A message without the mesh that JAX writes out where a value does not divide."""
    message = str(error)
    found = _INDIVISIBLE.search(message)
    if found is None:
        return message
    return f"dimension {found[1]} of a value has {found[3]} elements, and its sharding splits it into {found[2]}"


def is_absent(mesh: Any) -> bool:
    """Whether a mesh is one of devices that are not there, as :func:`absent_mesh` makes them."""
    device = next(iter(getattr(mesh, "devices", np.array([])).flat), None)
    return device is not None and "CompileOnly" in type(getattr(device, "client", None)).__name__


def mesh_among(values: Any) -> "Mesh | None":
    """The first mesh of absent devices that an array among these values is sharded over; None without any."""
    import jax

    shardings = (getattr(each, "sharding", None) for each in jax.tree.leaves(values))
    meshes: Any = (each.mesh for each in shardings if isinstance(each, jax.sharding.NamedSharding))
    return next((mesh for mesh in meshes if is_absent(mesh)), None)


def name_of(function: Any) -> str:
    """A function's qualified name, without the place of functions inside functions."""
    inner = function
    while hasattr(inner, "func") or hasattr(inner, "__wrapped__"):  # a partial, a wrapper
        inner = inner.func if hasattr(inner, "func") else inner.__wrapped__
    found = getattr(inner, "__qualname__", None) or type(inner).__name__
    return str(found).rpartition("<locals>.")[2].replace("<lambda>", "lambda")


def _placed(arguments: Any, in_shardings: Any, mesh: "Mesh", name: str = "arguments") -> Any:
    """Arguments with every array replaced by its shape, dtype and sharding on ``mesh``; ``name`` is what holds them."""
    import jax
    from jax.sharding import PartitionSpec

    def is_spec(each: Any) -> bool:
        return each is None or isinstance(each, (PartitionSpec, jax.sharding.Sharding))

    if in_shardings is None:
        return jax.tree_util.tree_map_with_path(lambda at, each: _shape(each, None, mesh, _path(name, at)), arguments)
    if not isinstance(in_shardings, tuple) and not is_spec(in_shardings):
        in_shardings = tuple(in_shardings) if isinstance(in_shardings, list) else (in_shardings,)
    try:
        return jax.tree_util.tree_map_with_path(
            lambda at, spec, part: jax.tree_util.tree_map_with_path(
                lambda inner, each: _shape(each, spec, mesh, _path(name, (*at, *inner))), part
            ),
            in_shardings,
            arguments,
            is_leaf=is_spec,
        )
    except (ValueError, TypeError) as error:
        reason = sentence(str(error))
        raise InvalidRequest(
            "in_shardings", "…", f"is no prefix of the arguments: {reason}", "give one partition spec an argument"
        ) from None


def _path(name: str, at: tuple[Any, ...]) -> str:
    """A leaf as it is written in Python: ``arguments[0]['weights']``."""
    import jax

    return name + jax.tree_util.keystr(at)


def _shape(each: Any, spec: Any, mesh: "Mesh", name: str) -> Any:
    """The shape of an array on the mesh; anything else as it is."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    if not hasattr(each, "shape") or not hasattr(each, "dtype"):
        return each
    own, key = getattr(each, "sharding", None), "in_shardings" if spec is not None else "sharding"
    if spec is None and isinstance(own, NamedSharding) and is_absent(own.mesh):
        _check_divides(name, each, own.spec, own.mesh, key)
        return jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=own)
    if spec is None and isinstance(own, NamedSharding):
        known = set(own.mesh.axis_names) <= set(mesh.axis_names)
        spec = own.spec if known and any(own.spec) else None
    if isinstance(spec, NamedSharding):
        spec = spec.spec
    if not isinstance(spec, PartitionSpec):
        return jax.ShapeDtypeStruct(each.shape, each.dtype)
    _check_divides(name, each, spec, mesh, key)
    try:
        sharding = NamedSharding(mesh, spec)
    except Exception as error:
        problem = (
            f"does not fit {name} of shape {list(each.shape)} on the mesh {dict(mesh.shape)}: {sentence(str(error))}"
        )
        raise InvalidRequest(key, str(spec), problem, "name each axis once") from None
    return jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=sharding)


def _check_divides(name: str, each: Any, spec: Any, mesh: Any, key: str) -> None:
    """Check that the axes of a spec are the mesh's, and divide the dimensions that they split.

    Raises:
        InvalidRequest: they are not, or do not; names the array and the dimension.
    """
    sizes, shape = dict(mesh.shape), list(each.shape)
    fits = f"does not fit {name} of shape {shape}"
    if len(spec) > len(shape):
        raise InvalidRequest(key, str(spec), f"{fits}, which has {len(shape)} dimensions", "split only those")
    for place, part in enumerate(spec):
        axes = [axis for axis in (part if isinstance(part, tuple) else (part,)) if isinstance(axis, str)]
        missing = [axis for axis in axes if axis not in sizes]
        if missing:
            raise InvalidRequest(
                key, str(spec), f"{fits}: there is no mesh axis {missing[0]}", f"use one of {', '.join(sizes)}"
            )
        devices = math.prod(sizes[axis] for axis in axes)
        if shape[place] % devices:
            raise InvalidRequest(
                key, str(spec), f"{fits}: {' × '.join(axes)} is {devices} devices, and dimension {place} of "
                f"{shape[place]} is no multiple of that", "use another size, or fewer devices along it",
            )  # fmt: skip


def _raised_at(error: BaseException) -> str:
    """`` at FILE:LINE`` of the innermost frame that is neither JAX's nor ours; empty if there is none."""
    import jax

    own = (str(Path(jax.__file__).parent), str(Path(__file__).parents[2]))
    frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith(own)]
    frames = [each for each in frames if not each.filename.startswith("<")]
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
