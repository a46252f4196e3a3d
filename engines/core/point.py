"""A point: one configuration for an engine to run or predict."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from engines.core.consistent import check_together
from engines.core.dtypes import ACTIVATION_DTYPES, WEIGHTS_ALONE, stream_dtype, weight_bytes
from engines.core.fingerprint import fingerprint
from engines.core.keys import Key, keys_of
from engines.core.method_keys import MethodKeys
from engines.core.pruning import NONE, as_run, pruning_of
from engines.core.runtime import AUTO
from engines.core.slice import MeshShape, Slice, slice_of
from engines.core.speculative_keys import filled_in


@dataclass(frozen=True, slots=True, kw_only=True)
class Point(MethodKeys):
    """One configuration. ``None`` leaves a choice to the engine, as ``auto`` does for named choices.

    ``runtime`` is the software that runs the model; None is the engine's own, and of a prediction the best known.

    ``batch_size`` is global. A prefill point reads ``input_len`` tokens; a decode point starts with ``input_len``
    tokens in its cache and generates ``output_len`` one by one; a generate point does both. A serve point is a server
    under load: ``batch_size`` is the most requests in flight, 0 without a bound; an imported one's batch or length is 0
    where the source states no one number. ``first_token`` says which pass yields the first of a generate point's
    ``output_len`` tokens; the other phases have no such choice. Making a point checks each value by itself;
    :meth:`check` checks them together.

    Raises:
        InvalidRequest: a key does not take its value; names the key, the value and what it takes.
    """

    def __post_init__(self) -> None:
        if self.phase == "prefill":
            object.__setattr__(self, "output_len", 0)
        for name, key in self.schema().items():
            key.check(getattr(self, name), self.phase)
        # However it is written, it is one point: columns:.5 is columns:0.5, and columns:0 leaves nothing out.
        object.__setattr__(self, "pruning", pruning_of(self.pruning).text)
        if self.phase != "generate":
            object.__setattr__(self, "first_token", "auto")
        if self.act_dtype == "auto":
            object.__setattr__(self, "act_dtype", default_act_dtype(self.weight_dtype))
        if self.kv_dtype == "auto":
            object.__setattr__(self, "kv_dtype", self.act_dtype)
        blocks = self.weight_group_size is not None or self.weight_dtype in WEIGHTS_ALONE
        if self.head_dtype is None and blocks:
            object.__setattr__(self, "head_dtype", stream_dtype(self.act_dtype))
        elif self.head_dtype == self.weight_dtype and not blocks:
            object.__setattr__(self, "head_dtype", None)
        for name, value in filled_in(self).items():
            object.__setattr__(self, name, value)

    @classmethod
    @cache
    def schema(cls) -> Mapping[str, Key]:
        """Name → key, in order: every field but model, chip, engine and runtime."""
        return keys_of(cls)

    def check(self) -> None:
        """Check that the values are consistent with each other.

        Raises:
            InvalidRequest: a load is asked of an engine of batches, an encoder for tokens, no slice has that many
                chips, a layout needs more chips or another batch, the parallel degrees do not multiply to the chips,
                groups of weights do not divide a matrix or a GPU's part of it, the tokens exceed the model's learned
                positions, or the runtime cannot run the model, on this chip, or in this way.
        """
        check_together(self if self.pruning == NONE else as_run(self))

    @property
    def weight_bytes(self) -> float:
        """Bytes of one weight of a layer's matrices, with its share of its group's scale and zero point.

        Of 2:4 where the chip multiplies it as such half of them, and two bits of each that says which it is.
        """
        whole = weight_bytes(self.weight_dtype, self.weight_group_size)
        return whole / 2 + 1 / 8 if self.is_sparse else whole

    @property
    def is_sparse(self) -> bool:
        """Whether weights are 2:4 and the chip multiplies them as such: NVIDIA's GPUs from Ampere on do."""
        cuda = self.chip.cuda
        return cuda is not None and cuda.compute_capability >= (8, 0) and pruning_of(self.pruning).two_of_four

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

        A key is None where it means nothing (``first_token`` of other phases, what is about experts of a model without
        any) and where its default does nothing, such as ``offload`` of none.
        """
        flat: dict[str, Any] = {"model": self.model.name, "hw": self.chip.name}
        flat |= {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("model", "chip")}
        flat["runtime"] = AUTO if self.runtime is None else self.runtime.name
        for name, key in self.schema().items():
            needs = key.about.needs
            flat[name] = key.in_row(flat[name]) if needs is None or needs.met(self) else None
        flat["first_token"] = self.first_token if self.phase == "generate" else None
        return flat

    @property
    def offloads(self) -> bool:
        """Whether layers' weights, or their keys and values, wait outside the chips."""
        return self.offload != "none" or self.offload_kv != "none"

    @property
    def staying_layers(self) -> int:
        """How many of the first layers stay on the chips where others wait outside: those that propose tokens."""
        return (self.draft_layers or 0) if self.offloads else 0

    def fingerprint(self, asked_of: str) -> str:
        """16 hex digits over every value of the point, architecture and datasheet included, and ``asked_of``.

        ``asked_of`` says what else tells two questions apart: the kind of evidence and the engine's options. A field
        at its default is left out, so that a new field whose default is what was done before changes no fingerprint.
        """
        content: dict[str, Any] = {"point": self, "of": asked_of}
        if self.offloads:
            content["host"] = [self.chip.host_link_bytes_per_s, self.chip.nvme_bytes_per_s]
        return fingerprint(content)


def default_act_dtype(weight_dtype: str) -> str:
    """The activations' format of ``act_dtype=auto``: the weights' own, or bfloat16 where weights are quantised."""
    return weight_dtype if weight_dtype in ACTIVATION_DTYPES else "bfloat16"
