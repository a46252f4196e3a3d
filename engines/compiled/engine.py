"""An engine that compiles the model with the real compilers, for chips that are not present, and times the schedule."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from engines.compiled import search
from engines.compiled.answers import Answers
from engines.compiled.compile.apart import NO_LIMITS, Limits, NotCompiled
from engines.compiled.compile.cache import Cache, default_folder
from engines.compiled.compile.compiler import Compiler, CompilerFailed
from engines.compiled.compile.environment import compiling_environment
from engines.compiled.cost.select import cost_model_of
from engines.compiled.cost.version import FIRST_VERSION, by_version, timing_model, version_of
from engines.compiled.depth import at_all_layers, shallow, surely_fits
from engines.compiled.estimate import estimate_of
from engines.compiled.exits import check_leaving, shares_of
from engines.compiled.hlo.parser import UnreadableHlo
from engines.compiled.offload import check_offload, check_offloaded_plan, host_rate
from engines.compiled.perfetto import write_traces
from engines.compiled.requests import request_of
from engines.compiled.speculative import OF_A_DRAFT, check_both_fit, check_turns, draft_for, over_turns, phases_of
from engines.compiled.target.base import Target
from engines.compiled.target.installed import check_installed, compiler_for
from engines.compiled.target.stages import check_stages, target_for
from engines.compiled.timed import TimedProgram, timed
from engines.core.digest import digest
from engines.core.engine import Estimate, Estimator, Facts
from engines.core.errors import InvalidRequest, OutOfMemory, ShardbenchError, Unsupported
from engines.core.point import Point
from engines.core.pruning import NONE, as_run
from engines.core.row import Source, Status
from engines.core.speculative_keys import check_rate
from engines.core.versions import JAX_LIBRARIES, versions_of

if TYPE_CHECKING:
    from engines.transformer.partition.plan import Plan

PLAIN: Final = ("plain",)


class CompiledEngine(Estimator):
    """Times the schedules that the compiler for a chip produces, for chips that are not present."""

    name: ClassVar[str] = "compiled"
    source: ClassVar[Source] = "compiled"
    code: ClassVar[Sequence[str]] = ("weights", "transformer", "compiled", "offload")
    runtime: ClassVar[str | None] = "xla"
    libraries: ClassVar[Sequence[str]] = JAX_LIBRARIES

    def __init__(
        self,
        *,
        cache_dir: str | None = None,
        trace_dir: str | None = None,
        keep_hlo: bool = False,
        compiler_options: Mapping[str, Any] | None = None,
        try_collectives: Sequence[str] = PLAIN,
        unroll_layers: bool | str = False,
        memory_limit_bytes: float | None = None,
        timeout_s: float | None = None,
        **_settings: Any,
    ) -> None:
        """``cache_dir`` null is the user's cache folder, an empty text none. Other settings are the harness's.

        ``trace_dir`` gets a Perfetto trace of every ok point, and with ``keep_hlo`` its scheduled HLO beside it.
        A point that leaves its collectives open gets the fastest of ``try_collectives``: the first that splits the
        residual stream is compiled in every open layout, the others of its kind in its fastest one; those with a whole
        residual likewise, in 1D. With ``unroll_layers`` every layer has arrays of its own, and the program no loop over
        layers; ``auto`` tries the fastest plan of the first variant both ways, and the others unrolled. A plan that
        cannot be compiled within ``memory_limit_bytes`` and ``timeout_s``, which are the harness's, answers nothing.

        Raises:
            InvalidRequest: ``try_collectives`` is not a list of variants, or ``unroll_layers`` neither true, false nor
                auto.
        """
        self.unroll_layers = search.checked_unrolling(unroll_layers)
        self.try_collectives = search.checked_collectives(try_collectives)
        self.options = {
            **({"compiler_options": dict(compiler_options)} if compiler_options else {}),
            **({"try_collectives": self.try_collectives} if self.try_collectives != PLAIN else {}),
            **({"unroll_layers": unroll_layers} if unroll_layers else {}),
        }
        self.trace_dir, self.keep_hlo = trace_dir, keep_hlo
        folder = default_folder() if cache_dir is None else cache_dir
        self.compiler = Compiler(Cache(folder or None), dict(compiler_options or {}))
        self.memory_limit_bytes, self.timeout_s = memory_limit_bytes, timeout_s
        self.limits, self.within_limits = NO_LIMITS, True
        self.instructions = set[str]()
        self.answers = Answers(self.compiler.cache.folder, self.code)

    def environment(self, points: Sequence[Point]) -> dict[str, str]:
        """Environment of the process that compiles: no accelerator is looked for, no cloud asked, logs are quiet.

        Raises:
            InvalidRequest: ``XLA_FLAGS`` holds no flags and names no file of flags.
        """
        return compiling_environment()

    def shares_programs(self, point: Point) -> Point:
        """A generate point runs the decode point's program, and is timed from it."""
        return point if point.phase == "prefill" else replace(point, phase="generate", first_token="auto")

    def program_id(self, point: Point) -> str:
        """A digest of every program that may answer, compiled for the target, and of what times it.

        That is the keys of the programs in the compile cache, the version of the timing model and the device that it
        takes. Only compiling tells in which layout a variant will be tried: each counts in all. Nor is known which
        instructions there are: it is the id of programs that the timing model's first version times as all later ones.

        Raises:
            ShardbenchError: the point is refused, or its compiler is not installed.
        """
        point = as_run(point)
        check_installed(point.chip)
        kept = self.answers.get(self._answer_key(point))
        if kept is not None and kept.facts.program_id is not None:
            return kept.facts.program_id
        return self._program_id(point, FIRST_VERSION)

    def program_ids(self, point: Point, answers: Sequence[Mapping[str, Any]]) -> list[str | None]:
        """The same of the instructions that each stored answer tells."""
        return by_version(answers, partial(self._program_id, as_run(point)))

    def _program_id(self, point: Point, timing_version: int) -> str:
        check_installed(point.chip)
        target, kinds = self._question(point)
        keys = set[str]()
        for plan in self._candidates(point, target, kinds):
            try:
                plan.check()
            except InvalidRequest:
                continue  # it answers nothing
            for phase in phases_of(point):
                plans = [plan] if phase in OF_A_DRAFT else shallow(plan) or [plan]
                keys |= {self.compiler.key(request_of(point, each, target, phase)) for each in plans}
        rate = [host_rate(point)] if point.offloads else []
        return digest(sorted(keys), timing_version, cost_model_of(point.slice(), target.places), *rate)

    def estimate(self, points: Sequence[Point]) -> Sequence[Estimate]:
        """One answer a point, in order; each may take its compiler a while."""
        return [self._answer(point) for point in points]

    def _answer(self, point: Point) -> Estimate:
        status: Status
        try:
            point = as_run(point)
            check_installed(point.chip)
            key = self._answer_key(point)
            found = self.answers.get(key) if self.trace_dir is None else None
            if found is None:
                found = self._estimate(point)
                if self.within_limits and self.trace_dir is None:
                    self.answers.put(key, found)
            return found
        except OutOfMemory as error:
            status, message = "oom", str(error)
        except (Unsupported, InvalidRequest) as error:
            status, message = "unsupported", str(error)
        except ShardbenchError as error:
            status, message = "failed", str(error)
        versions = versions_of(compiler_for(point.chip).libraries)
        program_id = self.program_id(point) if status == "oom" else None
        details = timing_model(()) if status == "oom" else {}  # no seconds that a version could change
        facts = Facts(program_id=program_id, versions=versions, details=details)
        return Estimate(status=status, error=message, facts=facts)

    def _answer_key(self, point: Point) -> str:
        settings = dict(self.options), self.memory_limit_bytes
        return self.answers.key(point, compiler_for(point.chip).libraries, settings)

    def _estimate(self, point: Point) -> Estimate:
        target, kinds = self._question(point)
        self.limits, self.within_limits = Limits.of(self.memory_limit_bytes, self.timeout_s), True
        self.instructions = set()  # of all that is tried: the fastest answers
        found = search.Tried()
        for number, (first, *others) in enumerate(kinds):
            plans = self._layouts(point, target, first, also=number > 0)
            ours = self._fastest(point, target, plans, search.Tried())
            # Where nothing fits, a looped variant of any layout may: it never holds a whole gathered matrix.
            plans = plans if ours.best is None else [ours.best[0]]
            more = search.others(point, plans, others, unroll=number == 0 and self.unroll_layers == search.AUTO)
            ours = self._fastest(point, target, more, ours)
            found = found.with_(ours)
        return self._told(point, target, found)

    def _candidates(self, point: Point, target: Target, kinds: Sequence[Sequence[str]]) -> list["Plan"]:
        """Every plan that may be tried."""
        found = list["Plan"]()
        for number, (first, *others) in enumerate(kinds):
            plans = self._layouts(point, target, first, also=number > 0)
            more = search.others(point, plans, others, unroll=number == 0 and self.unroll_layers == search.AUTO)
            found += [*plans, *more]
        return found

    def _question(self, point: Point) -> tuple[Target, list[tuple[str, ...]]]:
        """The target, and the collectives to try: of each kind, one that is compiled in every layout, then others."""
        from engines.transformer.generate.ragged_prompts import check_lengths
        from engines.transformer.partition.resolve import EXITS, READ, check_formats

        point.check()
        self.check_runtime(point)
        if point.pruning != NONE:
            raise Unsupported("pruning=2:4: XLA multiplies the zeros like other weights; use engine=analytic on a GPU")
        check_formats(point, (*READ, *EXITS, "offload", "offload_kv", "micro_batches"))
        check_offload(point)
        check_lengths(point)
        check_rate(point)
        if point.pipeline_degree > 1:
            check_stages(point, self.unroll_layers)
            return target_for(point), [PLAIN]
        open_ = point.collectives == search.AUTO
        return target_for(point), search.families(self.try_collectives) if open_ else [(point.collectives,)]

    def _layouts(self, point: Point, target: Target, collectives: str, *, also: bool) -> list["Plan"]:
        """The variant in every open layout; ``also``: another kind was tried both looped and unrolled."""
        if point.pipeline_degree > 1:
            from engines.transformer.partition.stages import staged_plan

            return [staged_plan(point, target.device_mesh)]
        found = search.layouts(target.resolve(point), target.device_mesh, collectives)
        plans = [
            replace(each, offloads=point.offload != "none", offloads_kv=point.offload_kv != "none") for each in found
        ]
        plans = (
            search.unrolled(plans)
            if self.unroll_layers is True or (also and self.unroll_layers == search.AUTO)
            else plans
        )
        return search.with_pages(point, plans)

    def _fastest(self, point: Point, target: Target, plans: Sequence["Plan"], before: search.Tried) -> search.Tried:
        """The fastest of these plans and of those tried before."""
        best, refusal, times = before.best, before.refusal, dict(before.times_s)
        for plan in plans:
            try:
                plan.check()
                check_turns(point, plan)
                check_leaving(point, plan)
                check_offloaded_plan(plan)
                phases = [over_turns(point, self._phase(point, plan, target, name)) for name in phases_of(point)]
            except (OutOfMemory, InvalidRequest, CompilerFailed, NotCompiled) as error:
                times[search.name_of(plan)] = str(error)
                self.within_limits &= not isinstance(error, NotCompiled)
                refusal = refusal or error
                continue
            times[search.name_of(plan)] = search.total_s(phases)
            if best is None or search.total_s(phases) < search.total_s(best[1]):
                best = plan, phases
        return search.Tried(best, refusal, times)

    def _phase(self, point: Point, plan: "Plan", target: Target, name: str) -> TimedProgram:
        # Unrolled, compiling takes memory and time in proportion to layers and tokens.
        many = plan.unrolled and name == "prefill"
        fewer = [] if name in OF_A_DRAFT else shallow(plan)
        depths = [self._timed(point, each, target, name, apart=many) for each in fewer]
        if depths:
            whole = at_all_layers(depths[0], depths[1], plan.model)
            hbm_bytes = point.chip.require("hbm_bytes", point.chip.hbm_bytes)
            if surely_fits(whole, hbm_bytes / target.cores):
                return whole
        return self._timed(point, plan, target, name, apart=bool(depths))

    def _timed(self, point: Point, plan: "Plan", target: Target, name: str, *, apart: bool) -> TimedProgram:
        request = request_of(point, plan, target, name)
        before = self.compiler.compilations
        compiled = self.limits.compile(self.compiler, request) if apart else self.compiler.compile(request)
        too_large = compiled.out_of_memory or target.too_large(compiled.memory)
        if too_large is not None:
            raise OutOfMemory(f"{name} with ffn_layout={plan.ffn_layout}: {too_large}")
        try:
            cost, rate = cost_model_of(point.slice(), target.places), host_rate(point)
            found = timed(name, compiled, cost, host_bytes_per_s=rate, shares=shares_of(point, name))
        except UnreadableHlo as error:
            if self.compiler.compilations == before and self.compiler.cache.forget(self.compiler.key(request)):
                return self._timed(point, plan, target, name, apart=apart)  # kept from when it stated fewer bounds
            written = f"{compiler_for(point.chip).told()} wrote a program that this reader cannot read: {error}"
            raise UnreadableHlo(f"{written}; {compiler_for(point.chip).remedy}") from error
        self.instructions |= found.instructions
        return found

    def _told(self, point: Point, target: Target, found: search.Tried) -> Estimate:
        if found.best is None:
            assert found.refusal is not None
            raise found.refusal
        plan, phases = found.best
        timed_by = timing_model(self.instructions)
        details = {
            "tried_s": dict(found.times_s),
            **timed_by,
            **write_traces(self.trace_dir, point, phases, keep_hlo=self.keep_hlo),
        }
        plans = [each for each in (plan, draft_for(target.resolve(point), plan)) if each is not None]
        found_it = estimate_of(point, target, self.compiler.mesh(target), plans, phases, details)
        check_both_fit(point, found_it.facts.peak_hbm_bytes or 0.0)
        return replace(
            found_it, facts=replace(found_it.facts, program_id=self._program_id(point, version_of(self.instructions)))
        )
