"""The digest of the programs that a point is timed with."""

from collections.abc import Mapping

from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from engines.core.digest import digest
from engines.core.point import Point
from engines.core.stablehlo import nameless
from engines.core.versions import compiler_flags, jax_libraries_of, versions_of
from engines.jax.devices import compiler_options
from engines.jax.offload.programs import layer_texts
from engines.jax.prompt_batch import decode_of, prompts_of
from engines.jax.settings import Settings
from engines.transformer.generate.early_exit import exits_of, make_leaving_decode
from engines.transformer.generate.ragged_prompts import shapes
from engines.transformer.partition.plan import Plan
from engines.transformer.programs import abstract_arguments, make_prefill
from engines.transformer.speculation.draft import draft_plan
from engines.transformer.speculation.options import speculation_of
from engines.transformer.speculation.programs import abstract_state, make_speculative_decode
from engines.transformer.speculation.propose import Both


def program_id_of(point: Point, plan: Plan, mesh: Mesh, texts: Mapping[str, str]) -> str:
    """Over the StableHLO of each timed stage, JAX's versions, the compiler's flags and options."""
    versions = versions_of(jax_libraries_of(point.chip.kind))
    programs = {stage: nameless(text) for stage, text in texts.items()}
    return digest(programs, versions, compiler_flags(), compiler_options(plan, mesh))


def abstract_program_id(point: Point, plan: Plan, mesh: Mesh, settings: Settings) -> str:
    """:func:`program_id_of` the programs that :class:`engines.jax.program.JaxProgram` times, without any weights."""
    if point.offload != "none":
        return program_id_of(point, plan, mesh, layer_texts(point, plan, mesh, settings))
    whole = NamedSharding(mesh, P())

    texts: dict[str, str] = {}
    arguments = abstract_arguments(plan, mesh, max(point.input_len, 1))
    weights, cache, token, _ = arguments["decode"]
    prompts = prompts_of(point, plan, mesh, settings)
    if point.phase != "decode":
        read = shapes(prompts.arguments, whole)
        texts["prefill"] = prompts.prefill.lower(weights, cache, *read).as_text()
    if point.speculative != "none":
        return program_id_of(point, plan, mesh, texts | _speculative_texts(point, plan, mesh, settings))
    start = shapes(prompts.position, whole)
    if point.exit_threshold is not None and point.decode_steps:
        exits = exits_of(point, settings.seed)
        leaving = make_leaving_decode(plan, mesh, point.decode_steps, exits, settings.sampling)
        texts["decode"] = leaving.lower(weights, cache, token, start).as_text()
    elif point.decode_steps:
        decode = decode_of(point, plan, mesh, settings)
        texts["decode"] = decode.lower(weights, cache, token, start).as_text()
    return program_id_of(point, plan, mesh, texts)


def _speculative_texts(point: Point, plan: Plan, mesh: Mesh, settings: Settings) -> dict[str, str]:
    """What :class:`engines.jax.speculative.SpeculativeProgram` compiles besides the model's prefill."""
    how, draft = speculation_of(point, settings.ngram), draft_plan(point, plan)
    assert how is not None
    texts: dict[str, str] = {}
    if draft is not None and point.phase != "decode":
        arguments = abstract_arguments(draft, mesh, point.input_len)["prefill"]
        texts["draft_prefill"] = make_prefill(draft, mesh, settings.sampling).lower(*arguments).as_text()
    if point.decode_steps:
        decode = make_speculative_decode(plan, draft, mesh, how, point.decode_steps, settings.sampling)
        *_, first = abstract_arguments(plan, mesh, point.input_len)["decode"][:3]
        *_, prompt = abstract_arguments(plan, mesh, point.input_len)["prefill"]
        texts["decode"] = decode.lower(*abstract_state(Both(plan, draft), mesh), first, prompt).as_text()
    return texts
