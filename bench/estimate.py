"""Any JAX program, timed on chips that are not there: the public functions of ``shardbench estimate``.

from bench.estimate import estimate

found = estimate(step, params, batch, hw="tpu-v5e", num_chips=16, in_shardings=(P("x"), P("y")))
print(found.step_time_s, found.explain())
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engines.compiled.hlo.schedule import Trips
from engines.compiled.program.difference import Difference, compare
from engines.compiled.program.result import ProgramEstimate
from engines.core.chip import Chip
from engines.core.errors import InvalidRequest
from engines.core.slice import Slice, slice_of

if TYPE_CHECKING:
    from jax.sharding import Mesh

__all__ = ["Difference", "ProgramEstimate", "absent_mesh", "compare", "estimate"]


def estimate(
    function: Any,
    *arguments: Any,
    hw: str | Chip,
    num_chips: int | None = None,
    mesh_shape: tuple[int, ...] | None = None,
    mesh: "Mesh | Mapping[str, int] | None" = None,
    in_shardings: Any = None,
    keywords: Mapping[str, Any] | None = None,
    compiler_options: Mapping[str, Any] | None = None,
    trip_count: int | tuple[int, int] | None = None,
    name: str | None = None,
    cache_dir: str | None = None,
    num_slices: int = 1,
) -> ProgramEstimate:
    """Trace a function for a slice that is not there, compile it with the slice's compiler and time its schedule.

    Args:
        function: a jitted or plain function.
        *arguments: shapes (:class:`jax.ShapeDtypeStruct`) or arrays, of which only the shapes are used; anything that
            is not an array is passed on as it is.
        hw: a chip of ``conf/hw``, by name, or a :class:`Chip`.
        num_chips: chips of the slice; by default as many as ``mesh`` has.
        mesh_shape: chips along the slice's axes x, y, z; by default the most cubic slice.
        mesh: names and sizes of the program's own mesh, which is placed on the slice as :func:`jax.make_mesh` does; or
            a mesh that :func:`absent_mesh` made. By default that of the arguments, else the slice's own x, y, z. The
            function is traced with it as JAX's mesh.
        in_shardings: partition specs, one an argument or a pytree of them, as :func:`jax.jit` takes them.
        keywords: keyword arguments of the function.
        compiler_options: of the XLA compiler, such as ``{"xla_tpu_scoped_vmem_limit_kib": "65536"}``.
        trip_count: how often a loop turns whose trip count the program does not tell, or the least and the most.
        name: what the program is called; by default as the function.
        cache_dir: the folder of compiled programs; None is the user's, an empty text none.
        num_slices: so many slices of ``num_chips`` each, joined by the data-centre network; the first axis of the mesh
            goes from slice to slice.

    Raises:
        InvalidRequest: there is no such slice, mesh or sharding, or ``trip_count`` is needed.
        OutOfMemory: the program does not fit.
        ShardbenchError: the function does not trace, or its compiler is missing or rejects it; one sentence.
    """
    from engines.compiled.program.estimate import Settings, estimate_function, ready
    from engines.compiled.program.lowering import mesh_among
    from engines.compiled.program.placement import absent_mesh as made

    axes = mesh if isinstance(mesh, Mapping) else None
    given: Any = None if axes is not None else mesh
    given = given if given is not None else mesh_among((arguments, dict(keywords or {})))
    slice_ = _slice(hw, num_chips, mesh_shape, dict(given.shape) if given is not None else axes, num_slices)
    ready(slice_)
    settings = Settings(
        compiler_options=dict(compiler_options or {}),
        unknown_trips=trips_of(trip_count),
        cache_dir=cache_dir,
        num_slices=num_slices,
    )
    on = given if given is not None else made(slice_, axes, num_slices=num_slices)
    return estimate_function(
        function, arguments, slice_, on, settings, keywords=keywords, in_shardings=in_shardings, name=name
    )


def absent_mesh(
    hw: str | Chip,
    axes: Mapping[str, int],
    *,
    num_chips: int | None = None,
    mesh_shape: tuple[int, ...] | None = None,
    explicit: bool = False,
    num_slices: int = 1,
) -> "Mesh":
    """A :class:`jax.sharding.Mesh` over a slice that is not there, placed as :func:`jax.make_mesh` places its axes.

    ``explicit`` makes axes of JAX's explicit sharding; otherwise the compiler propagates shardings.

    Raises:
        InvalidRequest: there is no such slice, or the axes do not multiply to its devices.
        Unsupported: the chip has no compiler here.
    """
    from engines.compiled.program.estimate import ready
    from engines.compiled.program.placement import absent_mesh as made

    slice_ = _slice(hw, num_chips, mesh_shape, axes, num_slices)
    ready(slice_)
    return made(slice_, axes, explicit=explicit, num_slices=num_slices)


def trips_of(trip_count: int | tuple[int, int] | None) -> Trips | None:
    """The least and the most turns.

    Raises:
        InvalidRequest: they are no numbers ≥ 0 in order.
    """
    if trip_count is None:
        return None
    values = (trip_count, trip_count) if isinstance(trip_count, int) else tuple(trip_count)
    if len(values) != 2 or any(type(each) is not int or each < 0 for each in values) or values[0] > values[1]:
        raise InvalidRequest("trip_count", trip_count, "must be an integer ≥ 0 or two in order", "use 8 or [1,8]")
    return Trips(*values)


def _slice(
    hw: str | Chip,
    num_chips: int | None,
    mesh_shape: tuple[int, ...] | None,
    axes: Mapping[str, int] | None,
    num_slices: int,
) -> Slice:
    import math

    from bench.sweep.catalog import load_chip

    chip = load_chip(hw) if isinstance(hw, str) else hw
    if num_chips is None:
        cores = chip.xla.cores if chip.xla is not None else 1
        devices = math.prod(axes.values()) if axes else math.prod(mesh_shape) * cores if mesh_shape else cores
        if axes and devices % num_slices:
            raise InvalidRequest("mesh", dict(axes), f"does not fill {num_slices} slices", "make its size a multiple")
        devices = devices // num_slices if axes else devices
        if devices % cores:
            raise InvalidRequest("mesh", dict(axes or {}), f"does not fill chips of {cores} devices", "add num_chips")
        num_chips = devices // cores
    return slice_of(chip, num_chips, mesh_shape)
