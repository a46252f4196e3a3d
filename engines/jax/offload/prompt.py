"""Prompts whose layers come one by one: whole, in chunks, behind a prefix that all share, or of different lengths."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from engines.core.layer_kind import LayerKind
from engines.jax.offload.decode import compiled, number_of, texts_of
from engines.jax.offload.stream import Before, CompiledPass, Run, Stream
from engines.jax.programs import Programs
from engines.jax.prompt_batch import Prompts
from engines.jax.work import Work
from engines.transformer.generate.prefill import prefix_plan, prefix_sharing
from engines.transformer.layer_programs import Reading
from engines.transformer.layer_readings import chunk_reading, prompt_reading, ragged_reading
from engines.transformer.layers.kv_cache import abstract_cache, empty_arrays
from engines.transformer.options import Sampling
from engines.transformer.partition.plan import Plan

PROMPT, SHARED = "prefill", "prefill prefix"


def prompt_texts(work: Work, prompts: Prompts) -> dict[str, str]:
    """The StableHLO of all programs of a prompt."""
    shared = {name: program.lower(*of).as_text() for name, program, of in _sharing(work).values()}
    return texts_of(work, _readings(work, prompts)) | shared


def streamed_prompt(
    work: Work, stream: Stream, programs: Programs, prompts: Prompts, timed: bool
) -> Callable[..., tuple[Any, ...]]:
    """(parameters without layers, caches, *inputs) → (next token [batch], logits [batch, vocab], caches)."""
    passes = compiled(work, programs, _readings(work, prompts), timed)
    if prompts.rows is not None:
        return _of_different_lengths(work, stream, passes[PROMPT], prompts)
    plan, mesh, prefix = work.plan, work.mesh, work.plan.prefill.prefix
    own = _Part(work, passes, PROMPT, prefix, max(work.point.input_len, 1) - prefix)
    if not prefix:

        def whole(resident: Any, caches: Any, tokens: Any) -> tuple[Any, ...]:
            with stream.opened(own.passes, caches, fresh=own.passes == 1) as run:
                found = own.read(run, resident, tokens)
            return *found, run.coming.held()

        return whole
    single, shared = prefix_plan(plan), _Part(work, passes, SHARED, 0, prefix)
    puts = {kind: programs.add(*each, timed) for kind, each in _sharing(work).items()}

    def behind_prefix(resident: Any, caches: Any, tokens: Any) -> tuple[Any, ...]:
        # One sequence's keys and values: they stay on the devices until every layer's cache has its own.
        with stream.opened(shared.passes, empty_arrays(abstract_cache(single, mesh)), here=True) as run:
            shared.read(run, resident, tokens[:1, :prefix])
        filled = run.coming.held()

        def put(layer: int, cache: Any) -> Any:
            return puts[stream.kinds[layer]](cache, filled[layer])

        with stream.opened(own.passes, caches, fresh=own.passes == 1) as run:
            found = own.read(run, resident, tokens[:, prefix:], put)
        for each in jax.tree.leaves(filled):
            each.delete()
        return *found, run.coming.held()

    return behind_prefix


class _Part:
    """``time`` tokens from ``start`` on: in one pass, or in chunks, of which what they leave over goes first."""

    def __init__(self, work: Work, passes: Mapping[str, CompiledPass], name: str, start: int, time: int) -> None:
        self.whole, self.rest = passes[name], passes.get(f"{name} rest")
        chunk, self.start = self.whole.time, start
        self.left = time % chunk
        self.starts = [(each, number_of(work, each)) for each in range(start + self.left, start + time, chunk)]
        self.zero = number_of(work, 0)

    @property
    def passes(self) -> int:
        return len(self.starts) + (self.rest is not None)

    def read(self, run: Run, resident: Any, tokens: Any, before: Before | None = None) -> Any:
        """What the last pass returns; ``before`` is done to each layer's cache in the first one."""
        if self.rest is not None:
            some = tokens[:, : self.left]
            run.forward(self.rest, resident, some, self.zero, first=self.start, before=before)
            before = None
        found = None
        for start, number in self.starts:
            at = start - self.start
            some, asked = tokens[:, at : at + self.whole.time], number if start == self.starts[-1][0] else None
            found = run.forward(self.whole, resident, some, number, asked, first=start, before=before)
            before = None
        return found


def _of_different_lengths(
    work: Work, stream: Stream, program: CompiledPass, prompts: Prompts
) -> Callable[..., tuple[Any, ...]]:
    zero, first = number_of(work, 0), None if prompts.packing else 0

    def read(resident: Any, caches: Any, tokens: Any, last: Any) -> tuple[Any, ...]:
        with stream.opened(1, caches, fresh=True) as run:
            found = run.forward(program, resident, tokens, zero, last, first=first)
        return *found, run.coming.held()

    return read


def _readings(work: Work, prompts: Prompts) -> dict[str, Reading]:
    """The readings that a prompt takes, by name."""
    plan, time, sampling, prefix = work.plan, max(work.point.input_len, 1), work.sampling, work.plan.prefill.prefix
    if prompts.rows is not None:
        return {PROMPT: ragged_reading(plan, prompts.rows, prompts.packing, time, sampling)}
    shared = _of_part(prefix_plan(plan), SHARED, prefix, sampling) if prefix else {}
    return shared | _of_part(plan, PROMPT, time - prefix, sampling)


def _of_part(plan: Plan, name: str, time: int, sampling: Sampling) -> dict[str, Reading]:
    """One, or one of what chunks leave over and one of a chunk."""
    chunk = plan.prefill.chunk
    if chunk is None or chunk >= time:
        return {name: prompt_reading(plan, time, sampling)}
    rest = time % chunk
    first = {f"{name} rest": prompt_reading(plan, rest, sampling)} if rest else {}
    return {**first, name: chunk_reading(plan, chunk, time, sampling)}


def _sharing(work: Work) -> Mapping[LayerKind, tuple[str, Any, tuple[Any, ...]]]:
    """Of each kind of layer name, program and arguments of what puts a prefix into its cache."""
    plan, mesh = work.plan, work.mesh
    if not plan.prefill.prefix:
        return {}
    both = zip(plan.stacks, abstract_cache(plan, mesh), abstract_cache(prefix_plan(plan), mesh), strict=True)
    arguments = {stack.kind: of for stack, *of in both}

    def program(cache: Any) -> Any:
        placed = jax.tree.map(lambda each: each.format, cache)
        return jax.jit(prefix_sharing(plan, mesh), donate_argnums=0, out_shardings=placed)

    return {
        kind: (f"prefill put {number}", program(of[0]), tuple(of))
        for number, (kind, of) in enumerate(arguments.items())
    }
