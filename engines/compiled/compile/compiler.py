"""Lowers the Transformer's own jitted functions from shapes alone, and compiles them for chips that are not present."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from engines.compiled.compile.cache import Cache, CompiledProgram, cache_key
from engines.compiled.target.base import Target
from engines.core.errors import ShardbenchError
from engines.core.point import Point
from engines.core.versions import compiler_flags, versions_of

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from engines.transformer.generate.early_exit import Exits
    from engines.transformer.partition.plan import Plan
    from engines.transformer.speculation.options import Speculation

SEED: Final = 0
"""Of the lengths of prompts."""
OUT_OF_MEMORY: Final = "RESOURCE_EXHAUSTED"


class CompilerFailed(ShardbenchError):
    """The compiler rejected a program for another reason than memory."""


@dataclass(frozen=True, slots=True)
class CompileRequest:
    """One program to compile: a phase of a plan, for a target. ``steps`` are those of a decode.

    ``libraries`` are those whose versions determine the compiler's output. The phases ``draft`` and ``verify`` are the
    parts of a turn of ``speculation``, with the plan of its draft model, if it has one. ``point`` is that of prompts of
    different lengths, whose shapes and constants follow from it; None of equal ones. Tokens of a decode leave at
    ``exits``, if there are some.
    """

    plan: "Plan"
    target: Target
    libraries: Sequence[str]
    phase: str
    input_len: int
    steps: int
    speculation: "Speculation | None" = None
    draft: "Plan | None" = None
    point: Point | None = None
    exits: "Exits | None" = None


@dataclass(frozen=True, slots=True)
class Keyed:
    """A lowered program with its key in the cache, and the options it is compiled with."""

    lowered: Any
    key: str
    options: Mapping[str, str | bool]


def keyed(lowered: Any, target: Target, libraries: Sequence[str], options: Mapping[str, str | bool]) -> Keyed:
    """A lowered program (:class:`jax.stages.Lowered`) and the hash of all that determines what it compiles to."""
    flags = {**compiler_flags(), **options}
    return Keyed(lowered, cache_key(lowered.as_text(), target, versions_of(libraries), flags), options)


class Compiler:
    """Compiles programs, or finds them in the cache. ``compilations`` counts those that were not in the cache.

    ``options`` are the compiler's own, for every program.
    """

    def __init__(self, cache: Cache, options: Mapping[str, str | bool]) -> None:
        self.cache, self.options = cache, dict(options)
        self.compilations = 0
        self._meshes: dict[Target, Mesh] = {}
        self._keys: dict[CompileRequest, str] = {}

    def mesh(self, target: Target) -> "Mesh":
        """The target's mesh, made once.

        Raises:
            Unsupported: the compiler rejects the topology.
        """
        if target not in self._meshes:
            self._meshes[target] = target.make_mesh()
        return self._meshes[target]

    def compile(self, request: CompileRequest) -> CompiledProgram:
        """The compiled program, or an entry that says why it does not fit.

        Raises:
            Unsupported: the compiler rejects the topology.
            CompilerFailed: it rejects the program.
        """
        program = self._keyed(request)
        self._keys[request] = program.key
        return self.compile_keyed(program)

    def compile_keyed(self, program: Keyed) -> CompiledProgram:
        """The same of any lowered program.

        Raises:
            CompilerFailed: the compiler rejects it.
        """
        import jax

        found = self.cache.get(program.key)
        if found is not None:
            return found
        self.compilations += 1
        start = time.perf_counter()
        try:
            executable = program.lowered.compile(compiler_options=dict(program.options) or None)
        except jax.errors.JaxRuntimeError as error:
            message = " ".join(str(error).split())
            if OUT_OF_MEMORY not in message:
                raise CompilerFailed(f"the compiler rejects the program: {message[:400]}") from None
            compiled = CompiledProgram(
                text="", memory={}, compile_s=time.perf_counter() - start, out_of_memory=out_of_memory_sentence(message)
            )
        else:
            stats = executable.memory_analysis()
            compiled = CompiledProgram(
                text=executable.as_text() or "",
                memory={
                    name: float(getattr(stats, f"{name}_size_in_bytes"))
                    for name in ("argument", "output", "alias", "temp", "generated_code")
                },
                compile_s=time.perf_counter() - start,
            )
        self.cache.put(program.key, compiled)
        return compiled

    def key(self, request: CompileRequest) -> str:
        """The key of the program in the cache, a hash of everything that determines the outcome. Compiles nothing.

        Raises:
            Unsupported: the compiler rejects the topology.
        """
        if request not in self._keys:
            self._keys[request] = self._keyed(request).key
        return self._keys[request]

    def _keyed(self, request: CompileRequest) -> Keyed:
        return keyed(self._lower(request), request.target, request.libraries, self._options(request))

    def _options(self, request: CompileRequest) -> dict[str, str | bool]:
        from engines.transformer.layers.overlapped_block import compiler_options

        plan, mesh = request.plan, self.mesh(request.target)
        return {**request.target.options, **compiler_options(plan, mesh), **self.options}

    def _lower(self, request: CompileRequest) -> Any:
        from engines.transformer.programs import abstract_arguments, make_decode, make_prefill

        plan, mesh = request.plan, self.mesh(request.target)
        if request.point is not None:
            return _lower_ragged(request.point, request, mesh)
        if request.speculation is not None:
            from engines.transformer.speculation.programs import abstract_turn, make_proposal, make_verdict

            how, draft = request.speculation, request.draft
            of_turn = abstract_turn(plan, draft, mesh, how, plan.cache_len + 1)[request.phase]
            turn = make_proposal(plan, draft, mesh, how) if request.phase == "draft" else make_verdict(plan, mesh, how)
            return turn.lower(*of_turn)
        arguments = abstract_arguments(plan, mesh, max(request.input_len, 1))[request.phase]
        if plan.stages > 1:
            made = _pipelined(request, mesh)
        elif request.exits is not None:
            from engines.transformer.generate.early_exit import make_leaving_decode

            made = make_leaving_decode(plan, mesh, request.steps, request.exits)
        else:
            made = make_prefill(plan, mesh) if request.phase == "prefill" else make_decode(plan, mesh, request.steps)
        return made.lower(*arguments)


def _pipelined(request: CompileRequest, mesh: "Mesh") -> Any:
    """The program of a pipeline's stages."""
    from engines.transformer.generate.pipeline import make_pipelined_decode, make_pipelined_prefill

    if request.phase == "prefill":
        return make_pipelined_prefill(request.plan, mesh)
    return make_pipelined_decode(request.plan, mesh, request.steps)


def _lower_ragged(point: Point, request: CompileRequest, mesh: "Mesh") -> Any:
    """The program for prompts of the lengths that the seed 0 draws, as the ``jax`` engine runs it."""
    from jax.sharding import NamedSharding, PartitionSpec

    from engines.transformer.generate.ragged_prompts import ragged_prompts, shapes
    from engines.transformer.programs import abstract_arguments, make_decode, make_ragged_prefill

    plan, whole = request.plan, NamedSharding(mesh, PartitionSpec())
    prompts = ragged_prompts(point, plan, SEED)
    weights, cache, token, _ = abstract_arguments(plan, mesh, request.input_len)["decode"]
    if request.phase == "prefill":
        made = make_ragged_prefill(plan, mesh, request.input_len, packing=prompts.packing)
        return made.lower(weights, cache, *shapes((prompts.rows, prompts.last), whole))
    made = make_decode(plan, mesh, request.steps)
    return made.lower(weights, cache, token, shapes(prompts.position, whole))


def out_of_memory_sentence(message: str) -> str:
    """The compiler's own figures, without its stack trace and list of buffers."""
    _, _, rest = message.partition(f"{OUT_OF_MEMORY}: ")
    sentence = (rest or message).split(". ")[0].split(" Largest program allocations")[0]
    return f"{sentence.strip().rstrip('.')[:300]}."
