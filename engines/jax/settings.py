"""The settings of ``conf/engine/jax.yaml``."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from engines.core.errors import InvalidRequest
from engines.core.model import Model
from engines.core.point import Point
from engines.transformer.options import BLOCK, CPU_BLOCK, PrefillOptions, Sampling, check_unroll_layers
from engines.weights.checkpoint.identity import identity, told_as
from engines.weights.checkpoint.source import open_checked
from engines.weights.held_out import text_identity
from engines.weights.quality import QualitySettings
from engines.weights.random import Source

TOLERANCE: Final[Mapping[str, float]] = {
    "float32": 1e-5,
    "float16": 0.01,
    "bfloat16": 0.06,
    "int8": 0.08,
    "float8_e4m3": 0.15,
    "int4": 0.4,
}
"""About 1.5 times the worst error over small models of every kind (int8 weights and activations: 0.051 on tiny)."""
_SAME_ANSWER: Final = frozenset({"tolerance", "virtual_devices", "coordinator", "process_id", "join_timeout_s"})
"""Settings that change neither the result nor how it is computed."""
NOT_HELD: Final = frozenset({"tolerance", "virtual_devices"})
"""Those of them that may still change a row: whether it is valid, and how many threads a device has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(QualitySettings):
    """Settings of the JAX engine; ``conf/engine/jax.yaml`` describes each.

    ``tolerance``: number format → largest relative error of logits; formats that are not named keep their default.
    ``checkpoint`` is a folder in Hugging Face's layout; without one, weights are random by ``seed``. Others are fields
    of :class:`engines.transformer.options.Sampling` and :class:`engines.transformer.options.PrefillOptions`.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    stop_token: int | None = None
    tolerance: Mapping[str, float] = field(default_factory=dict)
    virtual_devices: int = 8
    coordinator: str | None = None
    num_processes: int = 1
    process_id: int = 0
    join_timeout_s: float = 300
    attention: str = "auto"
    attention_block: int | None = None
    prefill_chunk: int | None = None
    shared_prefix: int = 0
    unroll_layers: bool | str = "auto"
    ngram: int = 2
    draft_checkpoint: str | None = None
    offload_dir: str | None = None

    def __post_init__(self) -> None:
        QualitySettings.__post_init__(self)  # super() finds no class that has slots
        check_unroll_layers(self.unroll_layers)
        if isinstance(self.ngram, bool) or not isinstance(self.ngram, int) or self.ngram < 1:
            raise InvalidRequest("engine.ngram", self.ngram, "must be an integer ≥ 1", "use 2")

    def allowed_error(self, *formats: str) -> float:
        """The tolerance of the coarsest of ``formats``."""
        tolerance = {**TOLERANCE, **self.tolerance}
        return max(tolerance[each] for each in formats)

    def prefill(self, point: Point) -> PrefillOptions:
        """How prompts are computed.

        Raises:
            InvalidRequest: a setting is unknown, out of range, or not supported for the point.
        """
        block = CPU_BLOCK if point.chip.kind == "cpu" else BLOCK
        block = block if self.attention_block is None else self.attention_block
        options = PrefillOptions(
            attention=self.attention, block=block, chunk=self.prefill_chunk, prefix=self.shared_prefix
        )
        options.check(point.input_len)
        options.check_kernel(point, point.padding == "packed")
        return options

    def unrolls(self, point: Point) -> bool:
        """Whether each layer has arrays of its own; where that is left open, on a CPU that multiplies them as stored.

        XLA for CPUs copies a layer's matrices out of the stack of all layers before it multiplies with them, in every
        step. Where it converts them, that is the copy, and without a loop it would hold all of them converted. Virtual
        devices keep the loop too: they are there to try layouts, in programs that compile fast.
        """
        if isinstance(self.unroll_layers, bool):
            return self.unroll_layers
        as_stored = point.weight_dtype == point.act_dtype and point.weight_dtype in ("float32", "bfloat16")
        if self.shared_prefix or point.exit_threshold is not None:
            return False
        return point.chip.kind == "cpu" and point.num_chips == 1 and as_stored

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen; sampling uses ``seed``.

        Raises:
            InvalidRequest: as :class:`Sampling`.
        """
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            seed=self.seed,
            stop_token=self.stop_token,
        )

    def source(self, model: Model) -> Source:
        """The source of the weights: the checkpoint, or the seed.

        Raises:
            InvalidRequest: the checkpoint cannot be read, is of another model, or contains NaN or infinity.
            Unsupported: safetensors is not installed.
        """
        return self._from(self.checkpoint, model, "engine.checkpoint")

    def draft_source(self, model: Model) -> Source:
        """The source of a draft model's weights, as :meth:`source`."""
        return self._from(self.draft_checkpoint, model, "engine.draft_checkpoint")

    def _from(self, checkpoint: str | None, model: Model, key: str) -> Source:
        with told_as(key):
            return self.seed if checkpoint is None else open_checked(Path(checkpoint).expanduser(), model)

    def options(self) -> dict[str, Any]:
        """The settings that change the result or how it is computed, where they differ from the defaults.

        A checkpoint or a text is identified by its content, not by its path.

        Raises:
            InvalidRequest: there is none.
        """
        defaults = type(self)()
        changed = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in _SAME_ANSWER}
        for key in ("checkpoint", "draft_checkpoint", "teacher"):
            if changed[key] is not None:
                with told_as(f"engine.{key}"):
                    changed[key] = identity(Path(changed[key]).expanduser())
        for key in ("text", "calibration_text"):
            if changed[key] is not None:
                changed[key] = text_identity(key, changed[key])
        return {name: value for name, value in changed.items() if value != getattr(defaults, name)}
