"""A point that is compiled and loaded on its devices, and can be run repeatedly.

It joins three parts, each of which goes with any of the others: where arrays wait (:mod:`engines.jax.places`), how the
prompt is read (:mod:`engines.jax.prompt_batch`) and how tokens are decided (:mod:`engines.jax.ways`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from engines.core.engine import Facts, Stage, Verification
from engines.core.versions import JAX_LIBRARIES, versions_of
from engines.jax.arrays import bytes_per_chip, replicated
from engines.jax.devices import out_of_memory
from engines.jax.identity import program_id_of
from engines.jax.peaks import measured_peaks
from engines.jax.places import place_of
from engines.jax.programs import Programs
from engines.jax.prompt_batch import prompts_of
from engines.jax.verification import Outputs, verified
from engines.jax.ways.chosen import way_of
from engines.jax.work import Work
from engines.transformer.partition.resolve import resolved_form, resolved_layout
from engines.transformer.partition.resolve_experts import resolved_experts
from engines.transformer.partition.stages import asks_for_ranks, ranks_as_run
from engines.weights.logits import checked_rows
from engines.weights.quality import Quality
from engines.weights.random import Source

TIMED = {"prefill": ("prefill",), "decode": ("decode",), "generate": ("prefill", "decode")}
"""Phase → the stages that it times."""


class JaxProgram:
    """Implements :class:`engines.core.engine.Program`."""

    def __init__(self, work: Work, source: Source, tolerance: float, quality: Callable[[], Quality | None]) -> None:
        """``source`` are the weights that run; ``quality`` is that of a model that was made smaller."""
        self.work, self.source, self.tolerance, self.quality = work, source, tolerance, quality
        point = work.point
        self.prompts = prompts_of(point, work.plan, work.mesh, work.settings)
        self.prompt = self.prompts.tokens
        self.programs = Programs(work)
        self.way, self.place = way_of(work), place_of(work, source)
        self.inputs = jax.tree.map(lambda each: replicated(work.mesh, each), self.prompts.arguments)
        # A decode point starts from a cache that a real prefill filled; without a prompt, from the first token.
        self.first = replicated(work.mesh, self.prompt[:, 0])
        self.first_scores: jax.Array | None = None
        self.decoded: tuple[jax.Array, jax.Array] | None = None
        self.start: tuple[Any, ...] = ()
        try:
            self.way.load()
            self._prepare(TIMED[point.phase])
        except BaseException:
            self.close()
            raise
        self.compile_s = self.programs.compile_s
        runs = {"prefill": self._prefill, "decode": self._decode}
        timed = [name for name in TIMED[point.phase] if name in self.programs.calls]
        self.stages: Sequence[Stage] = [Stage(name, runs[name]) for name in timed]

    def _prepare(self, timed: Sequence[str]) -> None:
        if self.work.point.input_len:
            self.place.prepare_prompt(self.programs, self.prompts, self.inputs, "prefill" in timed)
            self.way.prepare_prompt(self.programs, self.inputs, "prefill" in timed)
            self._prefill()
        if "decode" in timed and self.work.point.decode_steps:
            self.start = self.way.start(self.prompts)
            self.place.prepare_decode(self.programs, self.way, self.prompts, self.first)

    def _prefill(self) -> None:
        place = self.place
        with out_of_memory(self.work.point):
            self.first, self.first_scores, place.cache = self.programs.calls["prefill"](
                place.weights, place.cache, *self.inputs
            )
            jax.block_until_ready((self.first, self.first_scores, place.cache))
            self.way.read(self.programs, self.inputs)
        place.ran("prefill")

    def _decode(self) -> None:
        # The cache is donated and returned as the same buffer. Each run starts at the same position and overwrites what
        # the last run wrote before reading it, so nothing needs a reset between samples.
        place, way = self.place, self.way
        with out_of_memory(self.work.point):
            given = way.given(place.weights, place.cache)
            tokens, scores, caches, *counted = self.programs.calls["decode"](*given, self.first, *self.start)
            place.cache, way.counted = way.kept(caches), tuple(counted)
            self.decoded = jax.block_until_ready((tokens, scores))
            jax.block_until_ready(caches)
        place.ran("decode")

    def verify(self) -> Verification:
        """Run the timed programs once more, and compare: see :func:`engines.jax.verification.verified`.

        Raises:
            InvalidRequest: a stop token ended a sequence before the last step.
        """
        for stage in self.stages:
            stage.run()
        outputs = Outputs(self.first, self.first_scores, self.decoded)
        return verified(self.work, self.prompts, self.way, outputs, self.source, self.tolerance, self.quality())

    def _product(self) -> tuple[int, int, int]:
        """The shape of one chip's part of the first feed-forward matmul: tokens, model width, hidden width."""
        model, point = self.work.point.model, self.work.point
        tokens = point.batch_size * (1 if point.phase == "decode" else point.input_len)
        return tokens, model.d_model, max(1, model.d_ff // self.work.plan.chips)

    def facts(self) -> Facts:
        """Layouts as they ran, one chip's memory, versions, and the peaks measured here."""
        work, point, plan = self.work, self.work.point, self.work.plan
        form = resolved_form(plan, point.phase, point.input_len)
        resolved = {
            "runtime": "xla",
            "mesh_shape": list(plan.mesh_shape),
            **resolved_layout(plan),
            "collectives": plan.collectives,
            **({"latent_attention": form} if form else {}),
            **resolved_experts(plan),
            **ranks_as_run(point, plan),
            **({"mesh_shape": None} if asks_for_ranks(point) else {}),  # it is [1, 1, tensor_parallel]
        }
        requested = point.axes()
        copied_at_most = self.place.most_copied_bytes()
        peaks = measured_peaks(work.mesh, plan.act_dtype, self._product(), copied_at_most)
        flops, copied = peaks or (None, None)
        skipped_tokens = self.prompts.skipped_tokens
        without_datasheet = point.chip.kind == "cpu"
        found = Facts(
            program_id=program_id_of(point, plan, work.mesh, self.programs.timed_texts),
            resolved={key: value for key, value in resolved.items() if requested[key] != value},
            processed_tokens=point.tokens - (0 if point.phase == "decode" else skipped_tokens),
            cached_tokens=point.batch_size * point.input_len - skipped_tokens,
            **self._memory(),
            peak_flops_per_s=flops if without_datasheet else None,
            hbm_bytes_per_s=copied if without_datasheet else None,
            peak_source="measured matmul and copy in this process" if without_datasheet else None,
            measured_matmul_flops_per_s=flops,
            measured_copy_bytes_per_s=copied,
            device_kind=work.mesh.devices.flat[0].device_kind,
            versions=versions_of(JAX_LIBRARIES),
            details=self._details(),
        )
        return self.way.told(found)

    def _memory(self) -> dict[str, float | None]:
        """Bytes of one chip, by the names of :class:`Facts`."""
        timed = self.programs.memory([stage.name for stage in self.stages])
        weights, cache = self.place.held_bytes()
        weights += bytes_per_chip(self.way.weights)
        cache += bytes_per_chip(self.way.cache)
        temporary = max((float(each.temp_size_in_bytes) for each in timed), default=None)
        peak = max((_peak_bytes(each) for each in timed), default=None)
        if self.work.point.offloads and temporary is not None:
            # What a layer's program is given is a part of what is there.
            peak = weights + cache + temporary
        return {
            "weights_bytes": weights,
            "kv_cache_bytes": cache,
            "activations_bytes": temporary,
            "peak_hbm_bytes": peak,
        }

    def _details(self) -> dict[str, Any]:
        plan = self.work.plan
        return {
            "attention_batch_axes": "".join(plan.axes.sequence),
            "padded_heads": plan.padded.heads,
            "padded_kv_heads": plan.padded.kv_heads,
            "checked_sequences": len(checked_rows(self.work.point, plan.cache_len)),
            "seed": self.work.settings.seed,
            "unrolled": plan.unrolled,
            **self.prompts.details,
            **self.way.generated,
            **self.work.settings.options(),
            **self.place.details([stage.name for stage in self.stages]),
        }

    def close(self) -> None:
        """Free the devices' memory, and where arrays waited."""
        place, way = self.place, self.way
        for each in jax.tree.leaves((place.weights, place.cache, way.weights, way.cache)):
            each.delete()
        place.weights, place.cache, way.weights, way.cache = None, (), None, ()
        place.close()
        self.programs.clear()
        self.first_scores = self.decoded = None


def _peak_bytes(memory: Any) -> float:
    """Bytes of arguments, temporaries and outputs on one device; donated buffers count once."""
    return float(
        memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
    )
