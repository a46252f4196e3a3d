"""The digest of the programs that a point is timed with."""

from collections.abc import Mapping

from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from engines.core.digest import digest
from engines.core.point import Point
from engines.core.stablehlo import nameless
from engines.core.versions import compiler_flags, jax_libraries_of, versions_of
from engines.jax.devices import compiler_options
from engines.jax.prompt_batch import decode_of, prompts_of
from engines.jax.settings import Settings
from engines.transformer.generate.ragged_prompts import shapes
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import abstract_arguments


def program_id_of(point: Point, plan: Plan, mesh: Mesh, texts: Mapping[str, str]) -> str:
    """Over the StableHLO of each timed stage, JAX's versions, the compiler's flags and options."""
    versions = versions_of(jax_libraries_of(point.chip.kind))
    programs = {stage: nameless(text) for stage, text in texts.items()}
    return digest(programs, versions, compiler_flags(), compiler_options(plan, mesh))


def abstract_program_id(point: Point, plan: Plan, mesh: Mesh, settings: Settings) -> str:
    """:func:`program_id_of` the programs that :class:`engines.jax.program.JaxProgram` times, without any weights."""
    whole = NamedSharding(mesh, P())

    texts: dict[str, str] = {}
    arguments = abstract_arguments(plan, mesh, max(point.input_len, 1))
    weights, cache, token, _ = arguments["decode"]
    prompts = prompts_of(point, plan, mesh, settings)
    if point.phase != "decode":
        read = shapes(prompts.arguments, whole)
        texts["prefill"] = prompts.prefill.lower(weights, cache, *read).as_text()
    if point.decode_steps:
        decode = decode_of(point, plan, mesh, settings)
        texts["decode"] = decode.lower(weights, cache, token, shapes(prompts.position, whole)).as_text()
    return program_id_of(point, plan, mesh, texts)
