"""A point that is compiled and loaded on its devices, and can be run repeatedly."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from numpy.typing import NDArray

from engines.core.engine import Facts, Stage, Verification
from engines.core.point import Point
from engines.core.versions import JAX_LIBRARIES, versions_of
from engines.jax.devices import compiler_options, out_of_memory
from engines.jax.identity import program_id_of
from engines.jax.kept import compiled_once
from engines.jax.output_error import Bfloat16, agreement, kl_divergence, relative_error
from engines.jax.peaks import measured_peaks
from engines.jax.prompt_batch import decode_of, prompts_of
from engines.jax.quality import Quality
from engines.jax.settings import Settings
from engines.jax.stages import asks_for_ranks
from engines.jax.stop_token import complete_run
from engines.transformer.layers.kv_cache import make_cache
from engines.transformer.params.quantize import is_quantized, stored_bytes
from engines.transformer.params.tree import Parameters
from engines.transformer.partition.plan import Plan
from engines.transformer.partition.resolve import resolved_form, resolved_layout
from engines.transformer.partition.resolve_experts import resolved_experts
from engines.transformer.programs import load_parameters
from engines.transformer.reference import reference_logits
from engines.weights.random import Source
from engines.weights.texts import Texts

CHECKED_SCORES: Final = 1 << 26
"""Attention scores that the reference may hold at once: it checks as many sequences as fit, evenly spaced."""


class JaxProgram:
    """Implements :class:`engines.core.engine.Program`."""

    def __init__(
        self,
        point: Point,
        plan: Plan,
        mesh: Mesh,
        settings: Settings,
        source: Source,
        tolerance: float,
        quality: Callable[[], Quality | None],
    ) -> None:
        self.point, self.plan, self.mesh, self.tolerance = point, plan, mesh, tolerance
        self.settings, self.source, self.quality = settings, source, quality
        self.prompts = prompts_of(point, plan, mesh, settings)
        self.prompt = self.prompts.tokens
        self.weights: Parameters | None = self._load()
        self.cache = make_cache(plan, mesh)
        self.inputs = jax.tree.map(self._replicated, self.prompts.arguments)
        self.position = jax.tree.map(self._replicated, self.prompts.position)
        self.compiled: dict[str, Any] = {}
        self.calls: dict[str, Any] = {}
        self.timed_texts: dict[str, str] = {}
        self.compile_s = 0.0
        # A decode point starts from a cache that a real prefill filled; without a prompt, from the first token.
        self.first = self._replicated(self.prompt[:, 0])
        self.first_scores: jax.Array | None = None
        self.decoded: tuple[jax.Array, jax.Array] | None = None
        self.steps_run: list[jax.Array] = []
        self.generated: dict[str, int] = {}
        timed = {"prefill": ("prefill",), "decode": ("decode",), "generate": ("prefill", "decode")}[point.phase]
        if point.input_len:
            self._prepare_prefill("prefill" in timed)
            self._prefill()
        if "decode" in timed and point.decode_steps:
            self._prepare_decode()
        runs = {"prefill": self._prefill, "decode": self._decode}
        self.stages: Sequence[Stage] = [Stage(name, runs[name]) for name in timed if name in self.compiled]

    def _load(self) -> Parameters:
        """The parameters that every run is given."""
        return load_parameters(self.plan, self.mesh, self.source)

    def _prepare_prefill(self, timed: bool) -> None:
        self._compile("prefill", self.prompts.prefill, (self.weights, self.cache, *self.inputs), timed)

    def _prepare_decode(self) -> None:
        decode = decode_of(self.point, self.plan, self.mesh, self.settings)
        self._compile("decode", decode, (self.weights, self.cache, self.first, self.position), True)

    def _replicated(self, value: NDArray[Any]) -> jax.Array:
        return jax.make_array_from_callback(value.shape, NamedSharding(self.mesh, P()), lambda index: value[index])

    def _compile(self, name: str, function: Any, arguments: tuple[Any, ...], timed: bool) -> None:
        start = time.perf_counter()
        lowered = function.lower(*arguments)
        text, lower_s = lowered.as_text(), time.perf_counter() - start
        devices = tuple(device.id for device in self.mesh.devices.flat)
        kept = compiled_once(lowered, text, compiler_options(self.plan, self.mesh), devices)
        self.compiled[name] = kept.compiled
        # The jitted function is now compiled as well and accepts 4-bit arrays; the AOT program misreads their layout.
        four_bits = not {"int4", "mxfp4"}.isdisjoint((self.plan.weight_dtype, self.plan.head_format))
        self.calls[name] = function if four_bits else self.compiled[name]
        if timed:
            self.compile_s += lower_s + kept.compile_s
            self.timed_texts[name] = text

    def _prefill(self) -> None:
        with out_of_memory(self.point):
            self.first, self.first_scores, self.cache = self.calls["prefill"](self.weights, self.cache, *self.inputs)
            jax.block_until_ready((self.first, self.first_scores, self.cache))

    def _decode(self) -> None:
        # The cache is donated and returned as the same buffer. Each run starts at the same position and overwrites what
        # the last run wrote before reading it, so nothing needs a reset between samples.
        with out_of_memory(self.point):
            made = self.calls["decode"](self.weights, self.cache, self.first, self.position)
            tokens, scores, self.cache, *self.steps_run = made
            self.decoded = jax.block_until_ready((tokens, scores))
            jax.block_until_ready(self.cache)

    def verify(self) -> Verification:
        """Run the timed programs once more; compare their logits with the float32 reference fed with their tokens.

        Compared are the last position of each prompt and the last few decode steps, which read the whole cache.
        A quantized run is compared with a reference of bfloat16 weights as well.

        Raises:
            InvalidRequest: a stop token ended a sequence before the last step.
        """
        for stage in self.stages:
            stage.run()
        rows = self._checked_rows()
        texts = Texts(self.prompt[rows], self.prompts.ends[rows] + 1)
        outputs = []
        if self.first_scores is not None:
            texts.compare_last()
            outputs.append(gathered(self.first_scores)[None, rows])
        if self.decoded is not None:
            first, generated, scores = (gathered(each) for each in (self.first, *self.decoded))
            if self.settings.stop_token is not None:
                self.generated = complete_run(
                    first, generated, self.settings.stop_token, int(gathered(*self.steps_run))
                )
            texts.go_on(np.concatenate([first[rows, None], generated.T[rows, :-1]], axis=1), len(scores))
            outputs.append(scores[:, rows])
        output = np.concatenate(outputs)[..., : self.point.model.vocab_size].astype(np.float64)

        passed = self._layers(rows, texts.tokens.shape[1])

        def reference(source: Source, layers: NDArray[np.int64] | None = passed) -> NDArray[np.float64]:
            found = reference_logits(
                self.point.model, texts.tokens, texts.asked, source, self.plan.cache_len, layers
            ).astype(np.float64)
            return texts.of_each(found)

        expected = reference(self.source)
        error = relative_error(expected, output)
        bfloat16 = reference(Bfloat16(self.source)) if is_quantized(self.plan) else None
        quality = self.quality()
        if quality is None and passed is not None:
            assert self.decoded is not None
            made = len(self.decoded[1])
            whole = reference(self.source, None)[-made:]
            quality = Quality(kl_divergence(whole, output[-made:]), agreement(whole, output[-made:]), None)
        return Verification(
            quality_kl=None if quality is None else quality.kl,
            quality_agreement=None if quality is None else quality.agreement,
            quality_perplexity=None if quality is None else quality.perplexity,
            ok=error <= self.tolerance,
            max_relative_error=error,
            tolerance=self.tolerance,
            against="float32 on a single device",
            kl_divergence=kl_divergence(expected, output),
            bf16_max_relative_error=None if bfloat16 is None else relative_error(bfloat16, output),
            bf16_kl_divergence=None if bfloat16 is None else kl_divergence(bfloat16, output),
        )

    def _layers(self, rows: NDArray[np.int64], time: int) -> NDArray[np.int64] | None:
        """The layers that each of the ``time`` tokens of some sequences passed, [rows, time]; None: all of them."""
        return None

    def _checked_rows(self) -> NDArray[np.int64]:
        length = self.plan.cache_len
        most = max(1, CHECKED_SCORES // (length * length * self.point.model.num_heads))
        return np.unique(np.linspace(0, self.point.batch_size - 1, min(most, self.point.batch_size)).astype(np.int64))

    def _product(self) -> tuple[int, int, int]:
        """The shape of one chip's part of the first feed-forward matmul: tokens, model width, hidden width."""
        model, point = self.point.model, self.point
        tokens = point.batch_size * (1 if point.phase == "decode" else point.input_len)
        return tokens, model.d_model, max(1, model.d_ff // self.plan.chips)

    def _form(self) -> str | None:
        return resolved_form(self.plan, self.point.phase, self.point.input_len)

    def _ranks(self) -> dict[str, Any]:
        """The keys of a point that is cut by ranks, which has no mesh."""
        if not asks_for_ranks(self.point):
            return {}
        found = {"tensor_parallel": self.point.tensor_degree, "pipeline_parallel": self.plan.stages, "mesh_shape": None}
        return found if self.plan.stages == 1 else {**found, "micro_batches": self.plan.micro_batches}

    def facts(self) -> Facts:
        """Layouts as they ran, one chip's memory, versions, and the peaks measured here."""
        plan = self.plan
        resolved = {
            "runtime": "xla",
            "mesh_shape": list(plan.mesh_shape),
            **resolved_layout(plan),
            "collectives": plan.collectives,
            **({"latent_attention": form} if (form := self._form()) else {}),
            **resolved_experts(plan),
            **self._ranks(),
        }
        requested = self.point.axes()
        flops, copied = self._peaks() or (None, None)
        skipped_tokens = self.prompts.skipped_tokens
        without_datasheet = self.point.chip.kind == "cpu"
        return Facts(
            program_id=program_id_of(self.point, plan, self.mesh, self.timed_texts),
            resolved={key: value for key, value in resolved.items() if requested[key] != value},
            processed_tokens=self.point.tokens - (0 if self.point.phase == "decode" else skipped_tokens),
            cached_tokens=self.point.batch_size * self.point.input_len - skipped_tokens,
            **self._memory(),
            peak_flops_per_s=flops if without_datasheet else None,
            hbm_bytes_per_s=copied if without_datasheet else None,
            peak_source="measured matmul and copy in this process" if without_datasheet else None,
            measured_matmul_flops_per_s=flops,
            measured_copy_bytes_per_s=copied,
            device_kind=self.mesh.devices.flat[0].device_kind,
            versions=versions_of(JAX_LIBRARIES),
            details=self._details(),
        )

    def _peaks(self) -> tuple[float, float] | None:
        return measured_peaks(self.mesh, self.plan.act_dtype, self._product())

    def _memory(self) -> dict[str, float | None]:
        """Bytes of one chip, by the names of :class:`Facts`."""
        timed = [self.compiled[stage.name].memory_analysis() for stage in self.stages]
        return {
            "weights_bytes": bytes_per_chip(self._all_weights()),
            "kv_cache_bytes": bytes_per_chip(self._all_caches()),
            "activations_bytes": max((float(each.temp_size_in_bytes) for each in timed if each), default=None),
            "peak_hbm_bytes": max((_peak_bytes(each) for each in timed if each), default=None),
        }

    def _details(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "attention_batch_axes": "".join(plan.axes.sequence),
            "padded_heads": plan.padded.heads,
            "padded_kv_heads": plan.padded.kv_heads,
            "checked_sequences": len(self._checked_rows()),
            "seed": self.settings.seed,
            "unrolled": plan.unrolled,
            **self.prompts.details,
            **self.generated,
            **self.settings.options(),
        }

    def _all_weights(self) -> Any:
        """Every array of weights on the devices."""
        return self.weights

    def _all_caches(self) -> Any:
        """Every array of keys and values on the devices."""
        return self.cache

    def close(self) -> None:
        """Free the devices' memory."""
        for each in jax.tree.leaves((self._all_weights(), self._all_caches())):
            each.delete()
        self.weights, self.cache, self.compiled, self.calls = None, (), {}, {}
        self.first_scores = self.decoded = None


def gathered(array: jax.Array) -> NDArray[Any]:
    """A global array as numpy; every process of the job must call this at the same time."""
    whole: NDArray[Any] = multihost_utils.process_allgather(array, tiled=True)
    return whole


def bytes_per_chip(arrays: Any) -> float:
    """Bytes of the first chip's part of all arrays of a pytree."""
    local = [each.addressable_shards[0].data for each in jax.tree.leaves(arrays)]
    return sum(stored_bytes(each.shape, each.dtype) for each in local)


def _peak_bytes(memory: Any) -> float:
    """Bytes of arguments, temporaries and outputs on one device; donated buffers count once."""
    return float(
        memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
    )
