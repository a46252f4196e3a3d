"""The engine that runs a point with JAX. Importing this module does not import JAX."""

import math
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from engines.core.engine import JobProcess, Program, Runner, Team
from engines.core.errors import InvalidRequest, Unsupported
from engines.core.method_keys import MOVED
from engines.core.point import Point
from engines.core.pruning import as_run
from engines.core.row import Source
from engines.core.versions import DEVICE_COUNT_FLAG, JAX_LIBRARIES, XLA_FLAGS, xla_flags
from engines.jax.offload.checks import check_offload
from engines.jax.settings import NOT_HELD, Settings

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from engines.jax.work import Work
    from engines.transformer.partition.plan import Plan

GPU_MEMORY: Final = "XLA_PYTHON_CLIENT_MEM_FRACTION"


class JaxEngine(Runner):
    """Compiles and loads the partitioned Transformer for a point, on the devices that JAX sees."""

    name: ClassVar[str] = "jax"
    source: ClassVar[Source] = "measured"
    code: ClassVar[Sequence[str]] = ("weights", "transformer", "jax", "offload")
    runtime: ClassVar[str | None] = "xla"
    libraries: ClassVar[Sequence[str]] = JAX_LIBRARIES
    ignored_settings: ClassVar[Collection[str]] = {each.name for each in fields(Settings)} - NOT_HELD
    settings_type: ClassVar[type | None] = Settings

    def __init__(self, **settings: Any) -> None:
        """Keys of :class:`Settings`; others are the harness's.

        Raises:
            InvalidRequest: one makes no sense.
        """
        names = {each.name for each in fields(Settings)}
        for key, remedy in MOVED.items():
            value = settings.get(key.removeprefix("engine."))
            if value:
                raise InvalidRequest(key, value, "is a key of the point now", remedy)
        self.settings = Settings(**{name: value for name, value in settings.items() if name in names})
        self.sampling = self.settings.sampling
        self.options = self.settings.options()

    def environment(self, points: Sequence[Point]) -> dict[str, str]:
        """Environment variables for the process that will run ``points``, to be set before it imports JAX.

        Points on hw=cpu get as many virtual devices as the largest needs, and JAX looks for no accelerator. On GPUs, of
        which JAX takes three quarters of the memory by itself, what the user says, else nearly all.

        Raises:
            InvalidRequest: ``XLA_FLAGS`` holds no flags and names no file of flags.
        """
        flags = xla_flags()
        counts = [point.num_chips for point in points if point.chip.kind == "cpu"]
        if not counts:
            on_gpu = any(point.chip.kind == "gpu" for point in points)
            return {GPU_MEMORY: os.environ.get(GPU_MEMORY, "0.92")} if on_gpu else {}
        kept = re.sub(rf"{DEVICE_COUNT_FLAG}=\d+", "", flags).strip()
        processes = self.settings.num_processes
        # Several processes bring their devices together, and each as many as the others.
        devices = -(-max(counts) // processes) if processes > 1 else max(self.settings.virtual_devices, *counts)
        found = {XLA_FLAGS: f"{kept} {DEVICE_COUNT_FLAG}={devices}".lstrip()}
        if len(counts) == len(points):
            found["JAX_PLATFORMS"] = "cpu"
        if any(point.offloads for point in points):
            # Layers come and go: glibc would keep their memory among what is still in use, and the process grow.
            found |= {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}
        return found

    def process(self) -> JobProcess | None:
        """Which process of a job of several this is, by the settings or the cluster; None for one alone.

        Raises:
            See :func:`engines.jax.multihost.process_of`.
        """
        from engines.jax.multihost import process_of

        process = process_of(self.settings)
        if process is not None:
            self._take(process)
        return process

    def join(self) -> Team:
        """Meet the other processes: see :class:`engines.jax.multihost.ProcessGroup`."""
        from engines.jax.multihost import ProcessGroup

        group = ProcessGroup(self.settings)
        self._take(group.process)
        return group

    def _take(self, process: JobProcess) -> None:
        self.settings = replace(self.settings, num_processes=process.count, process_id=process.index)
        self.options = self.settings.options()

    def prepare(self, point: Point) -> Program:
        """Compile and load.

        Raises:
            InvalidRequest: the mesh cannot carry the model in this layout, the checkpoint is a bad one, or the stop
                token is not an id of the model.
            Unsupported: this engine, or these devices, cannot run the point.
            OutOfMemory: it does not fit.
        """
        work = self._work(point)
        from engines.jax.devices import out_of_memory
        from engines.jax.program import JaxProgram
        from engines.jax.quality import pruned_source, quality_of

        formats = (point.weight_dtype, point.head_format, point.act_dtype, point.kv_dtype)
        whole = self.settings.source(point.model)
        with out_of_memory(point):
            source = pruned_source(point, self.settings, whole)
            quality = partial(quality_of, point, work.point, self.settings, whole, source)
            return JaxProgram(work, source, self.settings.allowed_error(*formats), quality)

    def shares_programs(self, point: Point) -> Point:
        """The prompt's program is that of every phase and number of steps, and routing changes values alone."""
        return replace(point, phase="decode", output_len=1, first_token="auto", routing_skew=0.0)

    def program_id(self, point: Point) -> str:
        """A digest of the StableHLO of the timed programs, the versions of JAX, and the compiler's flags and options.

        Raises:
            See :meth:`prepare`; no memory is taken.
        """
        work = self._work(point)
        from engines.jax.identity import abstract_program_id

        return abstract_program_id(work)

    def _work(self, asked: Point) -> "Work":
        point = as_run(asked)
        plan, mesh = self._plan(point)
        from engines.jax.work import Work

        return Work(asked=asked, point=point, plan=plan, mesh=mesh, settings=self.settings)

    def _plan(self, point: Point) -> "tuple[Plan, Mesh]":
        """The plan and the mesh of a point that has passed every check short of loading it."""
        point.check()
        self.check_runtime(point)
        self.sampling.check(point.model)
        _check_supported(point)
        check_offload(point, self.settings)
        # JAX reads its environment when imported, which the harness sets after it has imported this module.
        from engines.jax.devices import mesh_of
        from engines.jax.prompt_batch import check_prompts
        from engines.jax.stages import staged_plan
        from engines.transformer.generate.prefill import prefix_plan
        from engines.transformer.generate.ragged_prompts import paged
        from engines.transformer.partition.resolve import plan_of
        from engines.transformer.partition.stages import asks_for_ranks

        made = staged_plan(point, self.settings) if asks_for_ranks(point) else plan_of(point)
        plan = replace(made, prefill=self.settings.prefill(point), unrolled=self.settings.unrolls(point))
        if point.offloads:
            plan = replace(plan, unrolled=True)  # layers come one by one, each in arrays of its own
        if point.exit_threshold is not None:
            from engines.transformer.generate.early_exit import check_exits

            check_exits(plan)
        plan.check()
        if plan.prefill.prefix:
            prefix_plan(plan)  # refuses what it could not read
        check_prompts(point, self.settings)
        self._check_speculation(point, plan)
        return paged(point, plan, self.settings.seed), mesh_of(point, plan)

    def _check_speculation(self, point: Point, plan: "Plan") -> None:
        settings = self.settings
        if point.speculative == "none":
            if settings.draft_checkpoint is not None:
                problem = "is of a draft model, and speculative=none"
                raise InvalidRequest(
                    "engine.draft_checkpoint", settings.draft_checkpoint, problem, "give speculative=draft"
                )
            return
        from engines.transformer.speculation.draft import draft_plan
        from engines.transformer.speculation.first_layers import first_layers
        from engines.transformer.speculation.options import check_speculation

        check_speculation(point, plan)
        if point.draft_layers is not None:
            first_layers(plan, point.draft_layers)
        draft = draft_plan(point, plan)
        if draft is not None:
            check_speculation(point, draft)


def _check_supported(point: Point) -> None:
    from engines.transformer.partition.resolve import EXITS, READ, check_formats

    check_formats(point, (*READ, *EXITS, "offload", "offload_kv"))
    if math.prod(point.mesh) != point.num_chips:
        raise Unsupported(f"mesh_shape={list(point.mesh)}: is not num_chips={point.num_chips}")
