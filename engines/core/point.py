"""A point: one configuration for an engine to run or predict."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Final, Literal, get_args

from engines.core.chip import Chip
from engines.core.dtypes import BYTES_PER_ELEMENT, default_act_dtype, stream_dtype, weight_bytes
from engines.core.errors import InvalidRequest
from engines.core.identity import plain
from engines.core.keys import Choice, Integer, Key, Sizes, about, keys_of
from engines.core.layout import (
    ATTN_SHARDINGS,
    COLLECTIVES,
    FFN_LAYOUTS,
    LAYOUTS,
    PARTITIONERS,
    AttnSharding,
    Partitioner,
    attention_batch_axes,
    axes_size,
)
from engines.core.model import Model
from engines.core.runtime import AUTO, Runtime
from engines.core.slice import MeshShape, Slice, slice_of
from engines.core.weight_groups import check_groups_of

Phase = Literal["prefill", "decode", "generate", "serve"]
PHASES: Final[tuple[str, ...]] = get_args(Phase)
IMPORTED: Final = "imported"
"""The engine of rows that another harness measured, the only one with points of the phase ``serve``."""
FirstToken = Literal["auto", "decode", "prefill"]
FIRST_TOKENS: Final[tuple[str, ...]] = get_args(FirstToken)
_DTYPES: Final = Choice(tuple(BYTES_PER_ELEMENT))
_DTYPES_OR_AUTO: Final = Choice(("auto", *BYTES_PER_ELEMENT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One configuration. ``None`` leaves a choice to the engine, as ``auto`` does for named choices.

    ``runtime`` is the software that runs the model; None is the engine's own, and of a prediction the best known.

    ``batch_size`` is global. A prefill point reads ``input_len`` tokens; a decode point starts with ``input_len``
    tokens in its cache and generates ``output_len`` one by one; a generate point does both. A serve point is a server
    under load, which no engine runs: ``batch_size`` is the most requests in flight, and a batch or length is 0 where
    the source states no one number. ``first_token`` says which pass yields the first of a generate point's
    ``output_len`` tokens; the other phases have no such choice. Making a point checks each value by itself;
    :meth:`check` checks them together.

    Raises:
        InvalidRequest: a key does not take its value; names the key, the value and what it takes.
    """

    model: Model
    chip: Chip
    num_chips: int = field(metadata=about(Integer(1), "chips"))
    engine: str
    runtime: Runtime | None = None
    phase: Phase = field(metadata=about(Choice(PHASES), "what is timed"))
    batch_size: int = field(metadata=about(Integer(1, zero_in=("serve",)), "sequences, over all chips"))
    input_len: int = field(
        metadata=about(
            Integer(1, zero_in=("decode", "serve")),
            "tokens of the prompt; of a decode point, in the cache at its start",
        )
    )
    output_len: int = field(metadata=about(Integer(1, zero_in=("prefill", "serve")), "tokens generated"))
    first_token: FirstToken = field(
        default="auto",
        metadata=about(
            Choice(FIRST_TOKENS),
            "which pass of a generate point yields the first of output_len tokens; auto is the engine's convention",
            engine_chooses=True,
        ),
    )
    mesh_shape: tuple[int, ...] | None = field(
        default=None, metadata=about(Sizes(), "chips along the axes x, y, z", engine_chooses=True)
    )
    ffn_layout: str = field(
        default="auto", metadata=about(Choice(FFN_LAYOUTS), "layout of the feed-forward layer", engine_chooses=True)
    )
    attn_sharding: AttnSharding = field(
        default="auto", metadata=about(Choice(ATTN_SHARDINGS), "what attention is split over", engine_chooses=True)
    )
    collectives: str = field(
        default="auto",
        metadata=about(Choice(COLLECTIVES), "how collectives overlap matmuls", engine_chooses=True),
    )
    partitioner: Partitioner = field(
        default="manual", metadata=about(Choice(PARTITIONERS), "who partitions the program")
    )
    tensor_parallel: int | None = field(
        default=None, metadata=about(Integer(1), "ranks that share a layer", engine_chooses=True)
    )
    pipeline_parallel: int | None = field(
        default=None, metadata=about(Integer(1), "stages that share the layers", engine_chooses=True)
    )
    weight_dtype: str = field(default="bfloat16", metadata=about(_DTYPES, "number format of the weights"))
    act_dtype: str = field(
        default="auto",
        metadata=about(_DTYPES_OR_AUTO, "number format of the activations, by whose peak MFU divides"),
    )
    kv_dtype: str = field(default="auto", metadata=about(_DTYPES_OR_AUTO, "number format of the cache"))
    weight_group_size: int | None = field(
        default=None,
        metadata=about(
            Integer(1),
            "inputs of a matrix that share a scale and a zero point (AWQ, GPTQ); auto is a scale for each output",
        ),
    )
    head_dtype: str | None = field(
        default=None,
        metadata=about(
            _DTYPES,
            "number format of the embedding and the output head; auto is weight_dtype, or 16 bits beside groups",
        ),
    )

    def __post_init__(self) -> None:
        if self.phase == "prefill":
            object.__setattr__(self, "output_len", 0)
        for name, key in self.schema().items():
            key.check(getattr(self, name), self.phase)
        if self.phase != "generate":
            object.__setattr__(self, "first_token", "auto")
        if self.act_dtype == "auto":
            object.__setattr__(self, "act_dtype", default_act_dtype(self.weight_dtype))
        if self.kv_dtype == "auto":
            object.__setattr__(self, "kv_dtype", self.act_dtype)
        if self.head_dtype is None and self.weight_group_size is not None:
            object.__setattr__(self, "head_dtype", stream_dtype(self.act_dtype))
        elif self.head_dtype == self.weight_dtype and self.weight_group_size is None:
            object.__setattr__(self, "head_dtype", None)

    @classmethod
    @cache
    def schema(cls) -> Mapping[str, Key]:
        """Name → key, in order: every field but model, chip, engine and runtime."""
        return keys_of(cls)

    def check(self) -> None:
        """Check that the values are consistent with each other.

        Raises:
            InvalidRequest: an engine is asked for the phase ``serve``, an encoder for tokens, no slice has that many
                chips, a layout needs more chips or another batch, the parallel degrees do not multiply to the chips,
                groups of weights do not divide a matrix or a GPU's part of it, the tokens exceed the model's learned
                positions, or the runtime cannot run the model, on this chip, or in this way.
        """
        if self.phase == "serve" and self.engine != IMPORTED:
            raise InvalidRequest(
                "phase",
                self.phase,
                "is a server under load, which is only imported from other harnesses",
                "use phase=prefill, decode or generate",
            )
        self.model.check_phase(self.phase)
        mesh = self.slice().mesh_shape
        if self.num_chips == 1:
            for key in ("ffn_layout", "attn_sharding"):
                if getattr(self, key) != "auto":
                    raise InvalidRequest(
                        key,
                        getattr(self, key),
                        "splits a model over several chips, and num_chips=1",
                        f"use {key}=auto or more chips",
                    )
        gathered = "" if self.ffn_layout == "auto" else LAYOUTS[self.ffn_layout].gathered
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
        check_groups_of(self)
        tokens = self.input_len + self.output_len
        if self.model.position == "learned" and tokens > self.model.max_positions:
            raise InvalidRequest(
                "input_len" if self.input_len >= self.output_len else "output_len",
                max(self.input_len, self.output_len),
                f"makes {tokens} tokens and {self.model.name} has {self.model.max_positions} learned positions",
                f"keep input_len + output_len within {self.model.max_positions}",
            )
        if self.runtime is not None:
            self.runtime.check(self)

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
    def weight_bytes(self) -> float:
        """Bytes of one weight of a layer's matrices, with its share of its group's scale and zero point."""
        return weight_bytes(self.weight_dtype, self.weight_group_size)

    @property
    def head_format(self) -> str:
        """Number format of the embedding and of the output head."""
        return self.head_dtype or self.weight_dtype

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

        ``output_len`` of a decode point, and of a generate point as in the paper's Table D.3 (total = prefill +
        ``output_len`` steps); one fewer where the first token comes from the prefill's logits.
        """
        if self.phase in ("prefill", "serve"):
            return 0
        return self.output_len - (self.first_token == "prefill")

    @property
    def tokens(self) -> int:
        """Tokens that pass through the model: B·(input_len | output_len | both), which MFU and cost count."""
        lengths = {
            "prefill": self.input_len,
            "decode": self.output_len,
            "generate": self.input_len + self.output_len,
            "serve": self.input_len + self.output_len,
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
        """The point as flat names and plain values: what a row and a table hold of it.

        ``first_token`` is None in the phases that have no such choice.
        """
        flat: dict[str, Any] = {"model": self.model.name, "hw": self.chip.name}
        for each in fields(self):
            if each.name not in ("model", "chip"):
                flat[each.name] = getattr(self, each.name)
        flat["runtime"] = AUTO if self.runtime is None else self.runtime.name
        flat["mesh_shape"] = None if self.mesh_shape is None else list(self.mesh_shape)
        flat["first_token"] = self.first_token if self.phase == "generate" else None
        return flat

    def fingerprint(self, asked_of: str) -> str:
        """16 hex digits over every value of the point, architecture and datasheet included, and ``asked_of``.

        ``asked_of`` says what else tells two questions apart: the kind of evidence and the engine's options. A field
        at its default is left out, so that a new field whose default is what was done before changes no fingerprint.
        """
        content = {"point": plain(self), "of": asked_of}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
