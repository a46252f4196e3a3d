"""The digest of the programs that a point is timed with."""

from collections.abc import Mapping

from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from engines.core.digest import digest
from engines.core.point import Point
from engines.core.stablehlo import nameless
from engines.core.versions import compiler_flags, jax_libraries_of, versions_of
from engines.jax.devices import compiler_options
from engines.jax.offload.prompt import prompt_texts
from engines.jax.prompt_batch import Prompts, prompts_of
from engines.jax.ways.chosen import way_of
from engines.jax.ways.steps import Steps
from engines.jax.work import Work
from engines.transformer.generate.ragged_prompts import shapes
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import abstract_arguments


def program_id_of(point: Point, plan: Plan, mesh: Mesh, texts: Mapping[str, str]) -> str:
    """Over the StableHLO of each timed stage, JAX's versions, the compiler's flags and options."""
    versions = versions_of(jax_libraries_of(point.chip.kind))
    programs = {stage: nameless(text) for stage, text in texts.items()}
    return digest(programs, versions, compiler_flags(), compiler_options(plan, mesh))


def abstract_program_id(work: Work) -> str:
    """:func:`program_id_of` the programs that :class:`engines.jax.program.JaxProgram` times, without any weights."""
    point, plan, mesh = work.point, work.plan, work.mesh
    way = way_of(work)
    prompts = prompts_of(point, plan, mesh, work.settings)
    texts: dict[str, str] = {}
    if point.phase != "decode":
        texts |= _prompt_texts(work, prompts) | way.prompt_texts()
    if point.decode_steps and point.phase != "prefill":
        texts |= way.layered_texts(prompts) if work.point.offloads else _whole_texts(work, way, prompts)
    return program_id_of(point, plan, mesh, texts)


def _prompt_texts(work: Work, prompts: Prompts) -> dict[str, str]:
    if work.point.offloads:
        return prompt_texts(work, prompts)
    weights, cache, *_ = abstract_arguments(work.plan, work.mesh, max(work.point.input_len, 1))["decode"]
    read = shapes(prompts.arguments, NamedSharding(work.mesh, P()))
    return {"prefill": prompts.prefill.lower(weights, cache, *read).as_text()}


def _whole_texts(work: Work, way: Steps, prompts: Prompts) -> dict[str, str]:
    weights, cache, token, _ = abstract_arguments(work.plan, work.mesh, max(work.point.input_len, 1))["decode"]
    start = way.start_shapes(prompts, NamedSharding(work.mesh, P()))
    return {"decode": way.whole().lower(*way.described(weights, cache), token, *start).as_text()}
