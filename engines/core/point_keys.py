"""The keys of a point: which there are, what each takes, and what an engine that does not read one refuses."""

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from engines.core.chip import Chip
from engines.core.dtypes import BYTES_PER_ELEMENT, WEIGHTS_ALONE
from engines.core.keys import Choice, Integer, Number, Sizes, about
from engines.core.layout import (
    ATTN_SHARDINGS,
    COLLECTIVES,
    EXPERT_AXES,
    EXPERT_DISPATCHES,
    FFN_LAYOUTS,
    LATENT_ATTENTIONS,
    PARTITIONERS,
    AttnSharding,
    ExpertDispatch,
    LatentAttention,
    Partitioner,
)
from engines.core.model import Model
from engines.core.needs import OfModels
from engines.core.runtime import Runtime

Offload = Literal["none", "host", "nvme"]
OFFLOADS: Final[tuple[str, ...]] = get_args(Offload)
OffloadKv = Literal["none", "host"]
OFFLOADS_KV: Final[tuple[str, ...]] = get_args(OffloadKv)
Phase = Literal["prefill", "decode", "generate", "serve"]
PHASES: Final[tuple[str, ...]] = get_args(Phase)
FirstToken = Literal["auto", "decode", "prefill"]
FIRST_TOKENS: Final[tuple[str, ...]] = get_args(FirstToken)
_EXPERTS: Final = OfModels("num_experts", "experts")
_LATENTS: Final = OfModels("kv_latent_dim", "latent attention")
_DTYPES: Final = Choice(tuple(BYTES_PER_ELEMENT))
_VALUES: Final = tuple(each for each in BYTES_PER_ELEMENT if each not in WEIGHTS_ALONE)
_DTYPES_OR_AUTO: Final = Choice(("auto", *_VALUES))


@dataclass(frozen=True, slots=True, kw_only=True)
class PointKeys:
    """The fields of :class:`engines.core.point.Point`, in the order of a row's columns.

    A key whose metadata says ``extends`` is refused by every engine that does not read it, so that a new one needs no
    change in the engines that run its default alone.
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
        default="auto",
        metadata=about(
            Choice(ATTN_SHARDINGS),
            "what attention is split over; replicated is query heads, with the whole cache on every chip",
            engine_chooses=True,
            extends=("sequence", "replicated"),
        ),
    )
    latent_attention: LatentAttention = field(
        default="auto",
        metadata=about(
            Choice(LATENT_ATTENTIONS),
            "whether queries go to the latent space or its keys and values are made for every head",
            engine_chooses=True,
            extends=True,
            needs=_LATENTS,
        ),
    )
    expert_axes: str = field(
        default="auto",
        metadata=about(
            Choice(EXPERT_AXES),
            "mesh axes of a TPU slice that spread the experts",
            engine_chooses=True,
            extends=True,
            needs=_EXPERTS,
        ),
    )
    expert_dispatch: ExpertDispatch = field(
        default="auto",
        metadata=about(
            Choice(EXPERT_DISPATCHES),
            "whether each token is sent to its experts' chips, or all of them gather all tokens",
            engine_chooses=True,
            extends=True,
            needs=_EXPERTS,
        ),
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
    expert_parallel: int | None = field(
        default=None,
        metadata=about(Integer(1), "GPUs that spread the experts", engine_chooses=True, extends=True, needs=_EXPERTS),
    )
    data_parallel: int | None = field(
        default=None,
        metadata=about(
            Integer(1),
            "groups of GPUs, each with the attention of its own sequences",
            engine_chooses=True,
            extends=True,
        ),
    )
    expert_capacity: float | None = field(
        default=None,
        metadata=about(
            Number(0.0),
            "tokens that an expert takes at most, as a multiple of its even share; auto drops none",
            extends=True,
            needs=_EXPERTS,
        ),
    )
    routing_skew: float = field(
        default=0.0,
        metadata=about(
            Number(0.0, at_least=True),
            "s of the Zipf law 1/rank^s of how often experts are chosen",
            extends=True,
            needs=_EXPERTS,
        ),
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
            Choice(_VALUES),
            "number format of the embedding and the output head; auto is weight_dtype, or 16 bits beside groups",
        ),
    )
    offload: Offload = field(
        default="none",
        metadata=about(
            Choice(OFFLOADS),
            "where the layers' weights wait, to be sent to the chip one by one",
            extends=True,
            is_off=True,
        ),
    )
    offload_kv: OffloadKv = field(
        default="none",
        metadata=about(
            Choice(OFFLOADS_KV), "where the cache of a layer waits while others run", extends=True, is_off=True
        ),
    )
    request_rate_per_s: float | None = field(
        default=None,
        metadata=about(
            Number(0.0),
            "of a serve point, requests sent a second; auto is the most under ttft_limit_s and tpot_limit_s, or all at "
            "once where there is no limit",
            engine_chooses=True,
            extends=True,
        ),
    )
    num_requests: int | None = field(
        default=None, metadata=about(Integer(1), "of a serve point, requests sent", engine_chooses=True, extends=True)
    )
    ttft_limit_s: float | None = field(
        default=None,
        metadata=about(Number(0.0), "of a serve point, the longest time to a request's first token", extends=True),
    )
    tpot_limit_s: float | None = field(
        default=None,
        metadata=about(
            Number(0.0), "of a serve point, the longest mean time of a request's tokens after the first", extends=True
        ),
    )
