"""Lowers the Transformer's own jitted functions with shapes alone, and compiles them for chips that are not there."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from engines.compiled.compile.cache import Cache, CompiledProgram, cache_key
from engines.compiled.target.base import Target
from engines.core.errors import ShardbenchError
from engines.core.versions import compiler_flags, versions_of

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from engines.transformer.partition.plan import Plan

OUT_OF_MEMORY: Final = "RESOURCE_EXHAUSTED"


class CompilerFailed(ShardbenchError):
    """The compiler gave up on a program for another reason than memory."""


@dataclass(frozen=True, slots=True)
class CompileRequest:
    """One program to compile: a phase of a plan, for a target. ``steps`` are those of a decode.

    ``libraries`` are those whose versions decide what the compiler makes of it.
    """

    plan: "Plan"
    target: Target
    libraries: Sequence[str]
    phase: str
    input_len: int
    steps: int


class Compiler:
    """Compiles questions, or finds them in the cache. ``compilations`` counts those that it compiled."""

    def __init__(self, cache: Cache, options: Mapping[str, str]) -> None:
        self.cache, self.options = cache, dict(options)
        self.compilations = 0
        self._meshes: dict[Target, Mesh] = {}
        self._keys: dict[CompileRequest, str] = {}

    def mesh(self, target: Target) -> "Mesh":
        """The target's mesh, made once.

        Raises:
            Unsupported: the compiler refuses the topology.
        """
        if target not in self._meshes:
            self._meshes[target] = target.make_mesh()
        return self._meshes[target]

    def compile(self, question: CompileRequest) -> CompiledProgram:
        """The compiled program; where it does not fit, an entry that says so.

        Raises:
            Unsupported: the compiler refuses the topology.
            CompilerFailed: it refuses the program.
        """
        import jax

        lowered = self._lower(question)
        options = self._options(question)
        key = self._keys[question] = self._key(question, lowered, options)
        found = self.cache.get(key)
        if found is not None:
            return found
        self.compilations += 1
        start = time.perf_counter()
        try:
            executable = lowered.compile(compiler_options=options or None)
        except jax.errors.JaxRuntimeError as error:
            told = " ".join(str(error).split())
            if OUT_OF_MEMORY not in told:
                raise CompilerFailed(f"the compiler refuses the program: {told[:400]}") from None
            compiled = CompiledProgram(
                text="", memory={}, compile_s=time.perf_counter() - start, out_of_memory=out_of_memory_sentence(told)
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
        self.cache.put(key, compiled)
        return compiled

    def key(self, question: CompileRequest) -> str:
        """The key of the compiled program in the cache: what decides what the compiler makes. Compiles nothing.

        Raises:
            Unsupported: the compiler refuses the topology.
        """
        if question not in self._keys:
            self._keys[question] = self._key(question, self._lower(question), self._options(question))
        return self._keys[question]

    def _key(self, question: CompileRequest, lowered: Any, options: Mapping[str, str | bool]) -> str:
        flags = {**compiler_flags(), **options}
        return cache_key(lowered.as_text(), question.target, versions_of(question.libraries), flags)

    def _options(self, question: CompileRequest) -> dict[str, str | bool]:
        from engines.transformer.layers.overlapped_block import compiler_options

        plan, mesh = question.plan, self.mesh(question.target)
        return {**question.target.options, **compiler_options(plan, mesh), **self.options}

    def _lower(self, question: CompileRequest) -> Any:
        from engines.transformer.programs import abstract_arguments, make_decode, make_prefill

        plan, mesh = question.plan, self.mesh(question.target)
        arguments = abstract_arguments(plan, mesh, max(question.input_len, 1))[question.phase]
        made = make_prefill(plan, mesh) if question.phase == "prefill" else make_decode(plan, mesh, question.steps)
        return made.lower(*arguments)


def out_of_memory_sentence(told: str) -> str:
    """The compiler's own figures, without its stack trace and list of buffers."""
    _, _, rest = told.partition(f"{OUT_OF_MEMORY}: ")
    sentence = (rest or told).split(". ")[0].split(" Largest program allocations")[0]
    return f"{sentence.strip().rstrip('.')[:300]}."


def peak_bytes(memory: Mapping[str, float]) -> float:
    """Arguments, temporaries, outputs and code of one device; what is donated counts once."""
    return memory["argument"] + memory["temp"] + memory["output"] - memory["alias"] + memory["generated_code"]
