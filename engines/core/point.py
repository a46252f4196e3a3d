"""A point: one question put to an engine."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Final, Literal

from engines.core.chip import Chip
from engines.core.dtypes import ACTIVATION_DTYPES, BYTES_PER_ELEMENT
from engines.core.errors import InvalidRequest
from engines.core.layout import (
    ATTN_SHARDINGS,
    COLLECTIVES,
    FFN_LAYOUTS,
    GATHERED_AXES,
    PARTITIONERS,
    AttnSharding,
    Collectives,
    FfnLayout,
    Partitioner,
    attention_batch_axes,
    axes_size,
)
from engines.core.model import Model
from engines.core.slice import MeshShape, Slice, slice_of

Phase = Literal["prefill", "decode", "generate"]
PHASES: Final[tuple[str, ...]] = ("prefill", "decode", "generate")
NOT_IDENTIFYING: Final = frozenset({"sources", "source", "device_names", "xla", "cuda", "link_constants"})
"""Fields of a model or chip that change no answer, or only through the program, which ``program_id`` identifies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What is asked. ``None`` leaves a choice to the engine, as ``auto`` does for the named choices.

    ``batch_size`` is global. A prefill point reads ``input_len`` tokens; a decode point starts with ``input_len``
    tokens in its cache and generates ``output_len`` one by one; a generate point does both. Making a point checks each
    value by itself; :meth:`check` checks what only the values together can break.
    """

    model: Model
    chip: Chip
    engine: str
    phase: Phase
    num_chips: int
    batch_size: int
    input_len: int
    output_len: int
    mesh_shape: tuple[int, ...] | None = None
    ffn_layout: FfnLayout = "auto"
    attn_sharding: AttnSharding = "auto"
    collectives: Collectives = "auto"
    partitioner: Partitioner = "manual"
    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    weight_dtype: str = "bfloat16"
    act_dtype: str = "auto"
    kv_dtype: str = "auto"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("phase", PHASES),
            ("ffn_layout", FFN_LAYOUTS),
            ("attn_sharding", ATTN_SHARDINGS),
            ("collectives", COLLECTIVES),
            ("partitioner", PARTITIONERS),
            ("weight_dtype", tuple(BYTES_PER_ELEMENT)),
            ("act_dtype", ("auto", *BYTES_PER_ELEMENT)),
            ("kv_dtype", ("auto", *BYTES_PER_ELEMENT)),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise InvalidRequest(name, value, "is not known", f"use one of {', '.join(allowed)}")
        if self.phase == "prefill":
            object.__setattr__(self, "output_len", 0)
        for name, least in (
            ("num_chips", 1),
            ("batch_size", 1),
            ("input_len", 0 if self.phase == "decode" else 1),
            ("output_len", 0 if self.phase == "prefill" else 1),
            ("tensor_parallel", 1),
            ("pipeline_parallel", 1),
        ):
            value = getattr(self, name)
            if value is None and name.endswith("_parallel"):
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise InvalidRequest(name, value, "is no whole number", f"give {least} or more")
            if value < least:
                raise InvalidRequest(name, value, "is too small", f"give {least} or more")
        if self.act_dtype == "auto":
            floating = self.weight_dtype in ACTIVATION_DTYPES
            object.__setattr__(self, "act_dtype", self.weight_dtype if floating else "bfloat16")
        if self.kv_dtype == "auto":
            object.__setattr__(self, "kv_dtype", self.act_dtype)

    def check(self) -> None:
        """Check what the values can only break together.

        Raises:
            InvalidRequest: no slice has that many chips, a layout needs more chips or another batch, the parallel
                degrees do not multiply to the chips, or the tokens exceed the model's learned positions.
        """
        mesh = self.slice().mesh_shape
        if self.num_chips == 1:
            for key in ("ffn_layout", "attn_sharding"):
                if getattr(self, key) != "auto":
                    raise InvalidRequest(
                        key,
                        getattr(self, key),
                        "cuts a model over several chips and num_chips=1",
                        f"leave {key}=auto or give more chips",
                    )
        gathered = GATHERED_AXES.get(self.ffn_layout, "")
        if self.batch_size % axes_size(gathered, mesh):
            raise InvalidRequest(
                "batch_size",
                self.batch_size,
                f"does not split over the {axes_size(gathered, mesh)} shards of ffn_layout={self.ffn_layout}",
                f"use a multiple of {axes_size(gathered, mesh)}, or ffn_layout=ws_2d",
            )
        if self.attn_sharding == "batch" and not gathered and attention_batch_axes(self.batch_size, mesh) is None:
            least = min(axes_size(axes, mesh) for axes in ("z", "yz", "xyz") if axes_size(axes, mesh) > 1)
            raise InvalidRequest(
                "batch_size",
                self.batch_size,
                f"does not split over any axes of mesh_shape={list(mesh)} for attn_sharding=batch",
                f"use a multiple of {least}, or attn_sharding=heads",
            )
        self._check_parallel_degrees()
        tokens = self.input_len + self.output_len
        if self.model.position == "learned" and tokens > self.model.max_positions:
            raise InvalidRequest(
                "input_len" if self.input_len >= self.output_len else "output_len",
                max(self.input_len, self.output_len),
                f"makes {tokens} tokens and {self.model.name} has {self.model.max_positions} learned positions",
                f"keep input_len + output_len within {self.model.max_positions}",
            )

    def _check_parallel_degrees(self) -> None:
        if self.tensor_parallel is None and self.pipeline_parallel is None:
            return
        if self.chip.kind == "tpu":
            key = "tensor_parallel" if self.tensor_parallel is not None else "pipeline_parallel"
            raise InvalidRequest(
                key, getattr(self, key), f"is a GPU setting and hw={self.chip.name}", "use ffn_layout and mesh_shape"
            )
        if self.tensor_degree * self.pipeline_degree != self.num_chips:
            key = "tensor_parallel" if self.tensor_parallel is not None else "pipeline_parallel"
            raise InvalidRequest(
                key,
                getattr(self, key),
                f"times the other degree is not num_chips={self.num_chips}",
                "tensor_parallel × pipeline_parallel = num_chips",
            )

    @property
    def pipeline_degree(self) -> int:
        """Pipeline stages: as asked, else what tensor_parallel leaves of the chips, else 1."""
        if self.pipeline_parallel is not None:
            return self.pipeline_parallel
        return 1 if self.tensor_parallel is None else max(1, self.num_chips // self.tensor_parallel)

    @property
    def tensor_degree(self) -> int:
        """Tensor-parallel ranks: as asked, else what the pipeline leaves of the chips."""
        return self.tensor_parallel or max(1, self.num_chips // self.pipeline_degree)

    @property
    def decode_steps(self) -> int:
        """Forward passes of one token a sequence.

        A decode point has ``output_len``. A generate point has ``output_len`` too, as in the paper's Table D.3 (total
        = prefill + ``output_len`` steps), but ``output_len`` − 1 on GPUs: FasterTransformer takes the first token
        from the context pass.
        """
        if self.phase == "prefill":
            return 0
        return self.output_len - (self.phase == "generate" and self.chip.kind == "gpu")

    @property
    def tokens(self) -> int:
        """Tokens that pass through the model: B·(input_len | output_len | both), which MFU and cost count."""
        lengths = {
            "prefill": self.input_len,
            "decode": self.output_len,
            "generate": self.input_len + self.output_len,
        }
        return self.batch_size * lengths[self.phase]

    def slice(self) -> Slice:
        """The slice, its mesh shape chosen where it was left open.

        Raises:
            InvalidRequest: no such slice exists.
        """
        return slice_of(self.chip, self.num_chips, self.mesh_shape)

    @property
    def mesh(self) -> MeshShape:
        """[X, Y, Z] of :meth:`slice`."""
        return self.slice().mesh_shape

    def axes(self) -> dict[str, Any]:
        """The point as flat names and plain values: what a row and a table hold of it."""
        flat: dict[str, Any] = {"model": self.model.name, "hw": self.chip.name}
        for field in fields(self):
            if field.name not in ("model", "chip"):
                flat[field.name] = getattr(self, field.name)
        flat["mesh_shape"] = None if self.mesh_shape is None else list(self.mesh_shape)
        return flat

    def fingerprint(self, asked_of: str) -> str:
        """16 hex digits over every value of the point, architecture and datasheet included, and ``asked_of``.

        ``asked_of`` says what else tells two questions apart: the kind of evidence and the engine's options. A field
        at its default is left out, so that a new field whose default is what was done before changes no fingerprint.
        """
        content = {"point": _plain(self), "of": asked_of}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """Numbers that are equal print alike (2e12 and 2000000000000), so that they fingerprint alike."""
    if is_dataclass(value) and not isinstance(value, type):
        stated = {field.name: getattr(value, field.name) for field in fields(value)}
        return _plain(
            {name: item for name, item in stated.items() if item != _defaults(type(value)).get(name, MISSING)}
        )
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if key not in NOT_IDENTIFYING}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


@cache
def _defaults(kind: type) -> dict[str, Any]:
    """Field → default of a dataclass."""
    factories = {each.name: each.default_factory for each in fields(kind)}
    made = {name: factory() for name, factory in factories.items() if factory is not MISSING}
    return made | {each.name: each.default for each in fields(kind) if each.default is not MISSING}
