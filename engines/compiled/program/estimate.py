"""Compiles and times a program that somebody else wrote."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from engines.compiled.compile.cache import Cache, CompiledProgram, default_folder
from engines.compiled.compile.compiler import Compiler, keyed
from engines.compiled.compile.environment import QUIET
from engines.compiled.cost.network import several_slices_cost
from engines.compiled.cost.select import cost_model_of
from engines.compiled.cost.version import version_of
from engines.compiled.hlo.parser import parse_module
from engines.compiled.hlo.schedule import Schedule, Trips
from engines.compiled.hlo.source import read_sources
from engines.compiled.hlo.trip_count import UnknownTripCount
from engines.compiled.program.lowering import Lowered, locations, lower
from engines.compiled.program.placement import Placement, placement_of
from engines.compiled.program.result import ProgramEstimate
from engines.compiled.target.installed import check_installed, compiler_for
from engines.compiled.target.select import target_of
from engines.compiled.target.slices import several_slices
from engines.compiled.timed import timed
from engines.core.digest import digest
from engines.core.errors import InvalidRequest, OutOfMemory
from engines.core.slice import Slice
from engines.core.versions import versions_of

if TYPE_CHECKING:
    from jax.sharding import Mesh


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a program is compiled and read. ``cache_dir`` null is the user's cache folder, an empty text none.

    ``num_slices`` equal slices are joined by the data-centre network. ``unknown_trips`` is how often a loop turns whose
    trip count the program does not tell.
    """

    compiler_options: Mapping[str, Any] = field(default_factory=dict)
    unknown_trips: Trips | None = None
    cache_dir: str | None = None
    num_slices: int = 1


def ready(slice_: Slice) -> None:
    """Make sure that the compiler for a slice is there, and quiet, before it is first used.

    Raises:
        CompilerMissing: it is not installed; names the command that installs it.
    """
    check_installed(slice_.chip)
    # A variable that is set already stays as it is.
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def estimate_function(
    function: Any,
    arguments: Sequence[Any],
    slice_: Slice,
    mesh: "Mesh",
    settings: Settings,
    *,
    keywords: Mapping[str, Any] | None = None,
    in_shardings: Any = None,
    name: str | None = None,
) -> ProgramEstimate:
    """Trace, compile and time a function on a mesh of absent devices; see :func:`lower` for its arguments.

    Raises:
        DoesNotTrace: JAX cannot trace it.
        OutOfMemory: the program does not fit.
        InvalidRequest: the mesh is not of the slice's devices, or a loop's trip count is not known and not given.
        ShardbenchError: the compiler rejects the program, or it cannot be read.
    """
    ready(slice_)
    lowered = lower(function, arguments, mesh, keywords=keywords, in_shardings=in_shardings, name=name)
    return estimate_lowered(lowered, slice_, settings)


def estimate_lowered(lowered: Lowered, slice_: Slice, settings: Settings) -> ProgramEstimate:
    """Compile and time a traced program.

    Raises:
        ShardbenchError: as :func:`estimate_function`.
    """
    target = target_of(slice_) if settings.num_slices == 1 else several_slices(slice_, settings.num_slices)
    placement = placement_of(lowered.mesh, target)
    folder = default_folder() if settings.cache_dir is None else settings.cache_dir
    compiler = Compiler(Cache(folder or None), {})
    libraries = compiler_for(slice_.chip).libraries
    program = keyed(lowered.stages, target, libraries, {**target.options, **settings.compiler_options})
    # Where its lines stand is no part of what a program is, but of the text that tells where its time goes.
    compiled = compiler.compile_keyed(replace(program, key=digest(program.key, locations(lowered.stages))))
    too_large = compiled.out_of_memory or target.too_large(compiled.memory)
    if too_large is not None:
        raise OutOfMemory(f"{lowered.name}: {too_large}")
    return estimate_compiled(lowered.name, compiled, slice_, placement, settings, program.key, versions_of(libraries))


def estimate_compiled(
    name: str,
    compiled: CompiledProgram,
    slice_: Slice,
    placement: Placement,
    settings: Settings,
    key: str,
    versions: Mapping[str, str],
) -> ProgramEstimate:
    """Read and time a compiled program; ``key`` is what tells it from others.

    Raises:
        InvalidRequest: a loop's trip count is not known and not given.
        ShardbenchError: the text cannot be read, or its collectives have no links on this slice.
    """
    natural = tuple(range(len(placement.places)))
    cost = cost_model_of(slice_, () if placement.places == natural else placement.places)
    if settings.num_slices > 1:
        cost = several_slices_cost(cost, slice_.chip)
    try:
        found = timed(name, compiled, cost, settings.unknown_trips)
    except UnknownTripCount as error:
        module = parse_module(compiled.text)
        place = read_sources(module).named(module, module.computations)[error.loop].place or error.loop
        problem = f"is needed: how often the loop at {place} turns does not follow from the program"
        raise InvalidRequest("trip_count", None, problem, "give a number, or the least and the most") from None
    _check_slices(found.schedule, settings.num_slices)
    return ProgramEstimate(
        name=name,
        slice=slice_,
        placement=placement,
        cost=cost,
        timed=found,
        program_id=digest(key, version_of(found.instructions), cost),
        versions=versions,
        num_slices=settings.num_slices,
    )


def _check_slices(schedule: Schedule, num_slices: int) -> None:
    steps = (step for each in schedule.computations.values() for step in each)
    joined = max((step.collective.slices for step in steps if step.collective is not None), default=1)
    if joined > num_slices:
        problem = f"is fewer than the {joined} slices that the program joins"
        raise InvalidRequest("num_slices", num_slices, problem, f"use num_slices={joined}")
