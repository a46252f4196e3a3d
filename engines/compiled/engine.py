"""An engine that asks the real TPU compiler: compiles the model for the slice, reads the schedule, tells its time."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Final

from engines.compiled.cache import Cache, Compiled, default_folder
from engines.engine import Estimate, Facts
from engines.errors import AskedWrongly, OutOfMemory, ShardbenchError, Unsupported
from engines.layout import GATHERED_AXES, axes_size
from engines.point import Point
from engines.row import Source, Status
from engines.versions import JAX_LIBRARIES, versions_of

if TYPE_CHECKING:
    from engines.compiled.timeline import Account, Timeline
    from engines.compiled.topology import Target
    from engines.transformer.plan import Plan

PHASES: Final = {"prefill": ("prefill",), "decode": ("decode",), "generate": ("prefill", "decode")}
REMEDY: Final = "pip install 'shardbench[tpu]'"


@dataclass(frozen=True, slots=True)
class Phase:
    """One program of a point: compiled, read and timed."""

    name: str
    compiled: Compiled
    timeline: "Timeline"
    unknown: Mapping[str, int]

    @property
    def account(self) -> "Account":
        """Seconds of the whole phase."""
        return self.timeline.account


class CompiledEngine:
    """States the times of schedules that the TPU compiler made, for slices that are not there."""

    name: ClassVar[str] = "compiled"
    source: ClassVar[Source] = "compiled"
    code: ClassVar[Sequence[str]] = ("transformer", "compiled")

    def __init__(
        self,
        *,
        cache_dir: str | None = None,
        trace_dir: str | None = None,
        keep_hlo: bool = False,
        compiler_options: Mapping[str, str] | None = None,
        **_settings: Any,
    ) -> None:
        """``cache_dir`` null is the user's cache folder, an empty text none. Other settings are the harness's.

        ``trace_dir`` gets a Perfetto trace of every ok point, and with ``keep_hlo`` its scheduled HLO beside it.
        """
        from engines.compiled.program import Compiler

        self.trace_dir, self.keep_hlo = trace_dir, keep_hlo
        folder = default_folder() if cache_dir is None else cache_dir
        self.compiler = Compiler(Cache(folder or None), dict(compiler_options or {}))

    def environment(self, points: Sequence[Point]) -> dict[str, str]:
        """Environment of the process that compiles: no accelerator is looked for, no cloud asked, logs are quiet."""
        return {
            "JAX_PLATFORMS": "cpu",
            "TPU_SKIP_MDS_QUERY": "1",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # its lock is for the chips, and there are none
            "TPU_STDERR_LOG_LEVEL": "3",
            "TPU_MIN_LOG_LEVEL": "3",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }

    def estimate(self, points: Sequence[Point]) -> Sequence[Estimate]:
        """One answer a point, in order; each may take its compiler a while."""
        return [self._answer(point) for point in points]

    def _answer(self, point: Point) -> Estimate:
        status: Status
        try:
            missing = [name for name in ("jax", "libtpu") if find_spec(name) is None]
            if missing:
                return Estimate(
                    status="failed", error=f"engine=compiled: needs {missing[0]}, which is not installed; {REMEDY}"
                )
            return self._estimate(point)
        except OutOfMemory as error:
            status, told = "oom", str(error)
        except (Unsupported, AskedWrongly) as error:
            status, told = "unsupported", str(error)
        except ShardbenchError as error:
            status, told = "failed", str(error)
        return Estimate(status=status, error=told, facts=Facts(versions=versions_of(JAX_LIBRARIES)))

    def _estimate(self, point: Point) -> Estimate:
        from engines.compiled.topology import target_of
        from engines.transformer.asked import check_formats

        point.check()
        check_formats(point)
        target = target_of(point.slice())
        tried: dict[str, float | str] = {}
        best: tuple[Plan, list[Phase]] | None = None
        refusal: ShardbenchError | None = None
        for plan in self._candidates(point, target):
            try:
                plan.check()
                phases = [self._phase(point, plan, target, name) for name in PHASES[point.phase]]
            except (OutOfMemory, AskedWrongly) as error:
                tried[plan.ffn_layout] = str(error)
                refusal = refusal or error
                continue
            seconds = sum(phase.account.total_s for phase in phases)
            tried[plan.ffn_layout] = seconds
            if best is None or seconds < sum(phase.account.total_s for phase in best[1]):
                best = plan, phases
        if best is None:
            assert refusal is not None
            raise refusal
        return self._told(point, target, *best, tried)

    def _candidates(self, point: Point, target: "Target") -> list["Plan"]:
        """The plan asked for; where a prefill leaves the layout open, also every gathered layout its batch splits over.

        A prefill's best layout depends on its tokens (Pope et al. 2022, section 3.2.3), so it is compiled both ways.
        """
        from engines.transformer.asked import plan_of

        mesh = target.device_mesh
        plans = [plan_of(point, mesh_shape=mesh)]
        if point.ffn_layout == "auto" and point.phase == "prefill" and math.prod(mesh) > 1:
            for layout, axes in GATHERED_AXES.items():
                shards = axes_size(axes, mesh)
                if shards > 1 and point.batch_size % shards == 0:
                    plans.append(plan_of(point, ffn_layout=layout, mesh_shape=mesh))
        return plans

    def _phase(self, point: Point, plan: "Plan", target: "Target", name: str) -> Phase:
        from engines.compiled.hlo import UnreadableHlo, parse_module
        from engines.compiled.program import Question
        from engines.compiled.schedule import read_schedule
        from engines.compiled.timeline import walk

        steps = point.decode_steps if name == "decode" else 0
        compiled = self.compiler.compile(Question(plan, target, name, point.input_len, steps))
        if compiled.out_of_memory is not None:
            raise OutOfMemory(f"{name} with ffn_layout={plan.ffn_layout}: {compiled.out_of_memory}")
        try:
            schedule = read_schedule(parse_module(compiled.text))
        except UnreadableHlo as error:
            versions = versions_of(JAX_LIBRARIES)
            raise UnreadableHlo(
                f"libtpu {versions.get('libtpu')} wrote a program that this reader cannot read: {error}; {REMEDY}"
            ) from error
        return Phase(name, compiled, walk(schedule, _machine(point, target)), dict(schedule.unknown))

    def _told(
        self, point: Point, target: "Target", plan: "Plan", phases: list[Phase], tried: Mapping[str, float | str]
    ) -> Estimate:
        from engines.compiled.constants import constants_for
        from engines.compiled.program import peak_bytes

        times = {phase.name: phase.account.total_s for phase in phases}
        total = _sum_accounts(phases)
        sharded = _sharded_bytes(self.compiler.mesh(target), plan)
        constants = constants_for(point.chip)
        temporaries = max(phase.compiled.memory["temp"] for phase in phases)
        resolved = {
            "mesh_shape": list(point.mesh),
            "ffn_layout": None if plan.chips == 1 else plan.ffn_layout,
            "attn_sharding": None if plan.chips == 1 else plan.attn_sharding,
            "collectives": plan.collectives,
        }
        asked = point.axes()
        facts = Facts(
            resolved={key: value for key, value in resolved.items() if asked[key] != value},
            compute_s=total.compute_s,
            memory_s=total.memory_s,
            communication_s=total.communication_s,
            overlapped_s=total.overlapped_s,
            overhead_s=total.copy_wait_s,
            peak_hbm_bytes=target.cores * max(peak_bytes(phase.compiled.memory) for phase in phases),
            weights_bytes=target.cores * sharded["weights"],
            kv_cache_bytes=target.cores * sharded["cache"],
            activations_bytes=target.cores * temporaries,
            device_kind=target.topology_name,
            versions=versions_of(JAX_LIBRARIES),
            details={
                "exposed_s": total.exposed_s,
                "link_latency_s": total.latency_s,
                "seconds_by_kind": dict(total.by_kind.most_common()),
                "hbm_bytes_moved": total.hbm_bytes,
                "unestimated_s": total.unestimated_s,
                "unestimated_instructions": dict(total.unestimated),
                "unknown_instructions": _merged([phase.unknown for phase in phases]),
                "compile_s": {phase.name: phase.compiled.compile_s for phase in phases},
                "layouts_s": dict(tried),
                "constants": {
                    "clock_hz": constants.clock_hz,
                    "link_efficiency": constants.links.link_efficiency,
                    "hop_s": constants.links.hop_s,
                    "launch_s": constants.links.launch_s,
                    "set_by": list(constants.set_by),
                },
                "compiled_program": _said(point, plan),
                "attention_batch_axes": "".join(plan.batch_axes + plan.attention_axes),
                "padded_heads": plan.heads,
                **self._write_traces(point, phases),
            },
        )
        return Estimate(
            latency_s=sum(times.values()),
            ttft_s=times.get("prefill"),
            step_time_s=times["decode"] / point.decode_steps if point.decode_steps and "decode" in times else None,
            facts=facts,
        )

    def _write_traces(self, point: Point, phases: Sequence[Phase]) -> dict[str, dict[str, str]]:
        """The row's detail that names the trace file of each phase, once they are written."""
        from engines.compiled.trace import trace_name, write_trace

        if self.trace_dir is None:
            return {}
        layers, names = point.model.num_layers, dict[str, str]()
        for phase in phases:
            text = phase.compiled.text if self.keep_hlo else None
            path = write_trace(self.trace_dir, trace_name(point, phase.name), phase.timeline, layers, text)
            names[phase.name] = path.name
        return {"traces": names}


def _machine(point: Point, target: "Target") -> Any:
    from engines.compiled.constants import constants_for
    from engines.compiled.links import Torus
    from engines.compiled.timeline import Machine

    chip, constants = point.chip, constants_for(point.chip)
    if chip.hbm_bytes_per_s is None or chip.link_bytes_per_s is None:
        raise Unsupported(f"hw={chip.name}: its datasheet lacks the bandwidth of its memory or of its links")
    cores = (target.cores,) if target.cores > 1 else ()
    torus = Torus(
        shape=(*target.mesh_shape, *cores),
        wrap=(*target.wrap, *(False for _ in cores)),
        link_bytes_per_s=chip.link_bytes_per_s,
    )
    return Machine(
        clock_hz=constants.clock_hz,
        hbm_bytes_per_s=chip.hbm_bytes_per_s / target.cores,
        torus=torus,
        links=constants.links,
    )


def _sharded_bytes(mesh: Any, plan: "Plan") -> dict[str, float]:
    """Bytes of one device's weights and cache, without padding."""
    from engines.transformer.cache import abstract_cache
    from engines.transformer.formats import stored_bytes
    from engines.transformer.parameters import abstract_parameters

    described: dict[str, Callable[..., Mapping[str, Any]]] = {"weights": abstract_parameters, "cache": abstract_cache}
    return {
        name: sum(
            stored_bytes(each.sharding.shard_shape(each.shape), each.dtype) for each in describe(plan, mesh).values()
        )
        for name, describe in described.items()
    }


def _sum_accounts(phases: Sequence[Phase]) -> "Account":
    from engines.compiled.timeline import Account

    total = Account()
    for phase in phases:
        total.add(phase.account, 1)
    return total


def _merged(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    merged: dict[str, int] = {}
    for each in counts:
        for opcode, count in each.items():
            merged[opcode] = merged.get(opcode, 0) + count
    return merged


def _said(point: Point, plan: "Plan") -> str:
    prefill = f"one prefill of {point.input_len} tokens a sequence"
    decode = (
        f"{point.decode_steps} steps in one loop, each attending over the {plan.cache_len} positions of its cache, "
        "as its shapes are static"
    )
    return {"prefill": prefill, "decode": decode, "generate": f"{prefill}; {decode}"}[point.phase]
