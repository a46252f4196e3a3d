"""Tracing a user's function for devices that are not there, from shapes alone."""

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.text import one_line, shortened

if TYPE_CHECKING:
    from jax.sharding import Mesh


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
    jitted = function if hasattr(function, "lower") else jax.jit(function)
    placed = _placed(tuple(arguments), in_shardings, mesh)
    given = {key: _placed(value, None, mesh) for key, value in (keywords or {}).items()}
    try:
        with jax.sharding.set_mesh(mesh):
            stages = jitted.lower(*placed, **given)
    except ShardbenchError:
        raise
    except Exception as error:
        reason = shortened(first_line(f"{type(error).__name__}: {error}"))
        raise DoesNotTrace(f"function={name}: does not trace{_raised_at(error)}: {reason}") from error
    return Lowered(name=name, stages=stages, mesh=mesh)


def first_line(text: str) -> str:
    """The first line of a message: JAX's say the cause there, and advice below."""
    return (text.strip().splitlines() or [""])[0].strip()


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


def _placed(arguments: Any, in_shardings: Any, mesh: "Mesh") -> Any:
    """Arguments with every array replaced by its shape, dtype and sharding on ``mesh``."""
    import jax
    from jax.sharding import PartitionSpec

    def is_spec(each: Any) -> bool:
        return each is None or isinstance(each, (PartitionSpec, jax.sharding.Sharding))

    if in_shardings is None:
        return jax.tree.map(lambda each: _shape(each, None, mesh), arguments)
    if not isinstance(in_shardings, tuple) and not is_spec(in_shardings):
        in_shardings = tuple(in_shardings) if isinstance(in_shardings, list) else (in_shardings,)
    try:
        return jax.tree.map(
            lambda spec, part: jax.tree.map(lambda each: _shape(each, spec, mesh), part),
            in_shardings,
            arguments,
            is_leaf=is_spec,
        )
    except (ValueError, TypeError) as error:
        reason = shortened(one_line(str(error)))
        raise InvalidRequest(
            "in_shardings", "…", f"is no prefix of the arguments: {reason}", "give one partition spec an argument"
        ) from None


def _shape(each: Any, spec: Any, mesh: "Mesh") -> Any:
    """The shape of an array on the mesh; anything else as it is."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    if not hasattr(each, "shape") or not hasattr(each, "dtype"):
        return each
    own = getattr(each, "sharding", None)
    if spec is None and isinstance(own, NamedSharding) and is_absent(own.mesh):
        return jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=own)
    if spec is None and isinstance(own, NamedSharding):
        known = set(own.mesh.axis_names) <= set(mesh.axis_names)
        spec = own.spec if known and any(own.spec) else None
    if isinstance(spec, NamedSharding):
        spec = spec.spec
    if not isinstance(spec, PartitionSpec):
        return jax.ShapeDtypeStruct(each.shape, each.dtype)
    try:
        sharding = NamedSharding(mesh, spec)
        sharding.shard_shape(tuple(each.shape))
    except Exception as error:
        reason = shortened(one_line(str(error)))
        raise InvalidRequest(
            "in_shardings",
            str(spec),
            f"does not fit an argument of shape {list(each.shape)} on the mesh {dict(mesh.shape)}: {reason}",
            "use axes of the mesh whose sizes divide the dimensions",
        ) from None
    return jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=sharding)


def _raised_at(error: BaseException) -> str:
    """`` at FILE:LINE`` of the innermost frame that is neither JAX's nor ours; empty if there is none."""
    import jax

    own = (str(Path(jax.__file__).parent), str(Path(__file__).parents[2]))
    frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith(own)]
    frames = [each for each in frames if not each.filename.startswith("<")]
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
