"""From a point to a plan: every ``auto`` resolved."""

import math
from collections.abc import Collection
from typing import Final, Literal

from engines.core.dtypes import ACTIVATION_DTYPES, LARGEST, WEIGHTS_ALONE
from engines.core.errors import Unsupported
from engines.core.extension import check_extensions
from engines.core.layout import attention_batch_axes, layout_of
from engines.core.model import Model
from engines.core.point import Point
from engines.core.shardings import Shardings
from engines.core.slice import MeshShape
from engines.transformer.partition.plan import Plan
from engines.transformer.partition.resolve_experts import resolve_experts

FORMATS: Final = {
    "weight_dtype": (*ACTIVATION_DTYPES, *LARGEST, *WEIGHTS_ALONE),
    "act_dtype": (*ACTIVATION_DTYPES, "int8", "float8_e4m3"),
    "kv_dtype": (*ACTIVATION_DTYPES, "int8", "float8_e4m3"),
}
"""Key of a point → the number formats that the partitioned Transformer supports for it."""

READ: Final = (
    "pruning",
    "activation",
    "attention_sinks",
    "attention_window",
    "attn_output_bias",
    "attn_scale",
    "attn_sharding",
    "attn_softcap",
    "dense_layers",
    "embedding_norm",
    "embedding_scale",
    "expert_axes",
    "expert_capacity",
    "expert_d_ff",
    "expert_dispatch",
    "expert_parallel",
    "experts_per_token",
    "global_every",
    "kv_latent_dim",
    "latent_attention",
    "lengths",
    "logit_scale",
    "logit_softcap",
    "micro_batches",
    "norm_position",
    "num_experts",
    "padding",
    "planner",
    "position",
    "q_latent_dim",
    "qk_norm",
    "residual_scale",
    "rotary_attention_factor",
    "rotary_long_factors",
    "rotary_scaling",
    "rotary_short_factors",
    "rotary_truncated",
    "rotary_window_base",
    "router_bias",
    "router_correction",
    "router_groups",
    "router_groups_kept",
    "router_normalized",
    "router_scale",
    "router_score",
    "shared_expert_d_ff",
    "sequence_parallel",
    "shardings",
    "shared_expert_gate",
    "value_head_dim",
    "window_kind",
    "speculative",
    "draft_model",
    "draft_len",
    "draft_layers",
    "acceptance_rate",
)
"""Keys of models and points, of those that not every engine reads, that the partitioned Transformer does."""
EXITS: Final = ("exit_threshold", "exit_every", "exit_rate")
"""Those that a measurement reads besides: how many layers a step takes depends on values."""


def check_formats(point: Point, read: Collection[str] = READ) -> None:
    """Check that the Transformer, and the chip, support the point's number formats, and every key that is not ``read``.

    A compiler that partitions chooses its own collectives.

    Raises:
        Unsupported: they do not.
    """
    check_extensions(point, point.engine, read=read)
    if point.partitioner == "gspmd" and point.collectives not in ("auto", "plain"):
        raise Unsupported(
            f"collectives={point.collectives}: partitioner=gspmd leaves them to the compiler; use collectives=plain"
        )
    for key, allowed in FORMATS.items():
        value = getattr(point, key)
        if value not in allowed:
            raise Unsupported(
                f"{key}={value}: engine={point.engine} does not support it; it supports {', '.join(allowed)}"
            )
    act = point.act_dtype
    if act in ACTIVATION_DTYPES:
        return
    if point.weight_dtype != act:
        raise Unsupported(
            f"act_dtype={act}: a matmul in {act} needs {act} weights, and weight_dtype={point.weight_dtype}; "
            f"use weight_dtype={act}, or act_dtype=bfloat16"
        )
    if point.weight_group_size is not None:
        raise Unsupported(
            f"weight_group_size={point.weight_group_size}: weights in groups are converted for their matmul, and "
            f"act_dtype={act}; use act_dtype=bfloat16, or leave weight_group_size out"
        )
    point.chip.check_matmul(act)


def plan_of(point: Point, *, ffn_layout: str | None = None, mesh_shape: MeshShape | None = None) -> Plan:
    """The plan of a point, every ``auto`` resolved: by ``ffn_layout`` where given, else by :func:`resolve_layout`.

    ``mesh_shape`` is the mesh of devices where that is not the mesh of chips.
    """
    mesh = mesh_shape or point.mesh
    _check_planner(point, mesh)
    layout, attention = resolve_layout(
        point.model,
        mesh,
        ffn_layout or point.ffn_layout,
        point.attn_sharding,
        batch_size=point.batch_size,
        decodes=point.phase != "prefill",
    )
    expert_axes, expert_dispatch = resolve_experts(point, mesh, layout)
    return Plan(
        model=point.model,
        mesh_shape=mesh,
        ffn_layout=layout,
        attn_sharding=attention,
        batch_size=point.batch_size,
        # The tokens of the last turn of speculation stand behind the last one.
        cache_len=point.input_len + point.output_len + (point.draft_len or 0),
        weight_dtype=point.weight_dtype,
        act_dtype=point.act_dtype,
        kv_dtype=point.kv_dtype,
        weight_group_size=point.weight_group_size,
        head_dtype=point.head_dtype,
        expert_axes=expert_axes,
        expert_dispatch=expert_dispatch,
        expert_capacity=point.expert_capacity,
        latent_attention=point.latent_attention,
        collectives="plain" if point.collectives == "auto" else point.collectives,
        partitioner=point.partitioner,
        shardings=None if point.shardings is None else Shardings.parse(point.shardings),
        decodes=point.phase != "prefill",
        wrap=_wraps(point, mesh),
        ragged=point.lengths != "equal" and point.phase != "prefill",
        overlapped_all_to_all_chips=point.chip.xla.overlapped_all_to_all_chips if point.chip.xla else None,
    )


def _check_planner(point: Point, mesh: MeshShape) -> None:
    """Engines run plans and make none; shardings are of a mesh of chips.

    Raises:
        Unsupported: there is no plan, or it is of another mesh than the devices'.
    """
    if point.planner != "auto" and point.shardings is None:
        raise Unsupported(
            f"planner={point.planner}: engine={point.engine} runs the shardings of a plan, and has none for this "
            "point; shardbench plan planner=alpa says why, or writes some with out=FILE"
        )
    if point.shardings is not None and mesh != point.mesh:
        raise Unsupported(
            f"shardings: are of mesh_shape={list(point.mesh)}, and hw={point.chip.name} has devices {list(mesh)}; use "
            "a chip that is one device, such as tpu-v4"
        )


def _wraps(point: Point, mesh: MeshShape) -> tuple[bool, bool, bool]:
    """Which axes of ``mesh`` are closed: of a TPU slice, those that are axes of its torus as they are."""
    if point.chip.kind != "tpu":
        return (False, False, False)
    place = point.slice()
    x, y, z = (wraps and here == there for wraps, here, there in zip(place.wrap, mesh, place.mesh_shape, strict=True))
    return (x, y, z)


def resolve_layout(
    model: Model, mesh_shape: MeshShape, ffn_layout: str, attn_sharding: str, *, batch_size: int, decodes: bool
) -> tuple[str, str]:
    """What ``auto`` becomes: (ffn_layout, attn_sharding).

    2D where it sends less than 1D, sqrt(n) > F/E (Pope et al. 2022, section 3.2.2). Attention is split over the batch
    where the batch splits and either weights are gathered, or the point decodes and has fewer key/value heads than
    query heads (section 3.3); a cache of latent vectors, which no heads split, is replicated otherwise. One chip runs
    ``ws_1d`` over heads, which split nothing.
    """
    chips = math.prod(mesh_shape)
    if ffn_layout == "auto":
        ffn_layout = "ws_2d" if math.sqrt(chips) > model.d_ff / model.d_model else "ws_1d"
    if attn_sharding == "auto":
        shared = model.attention.is_latent or model.num_kv_heads < model.num_heads
        splits = attention_batch_axes(batch_size, mesh_shape) is not None
        gathers = bool(layout_of(ffn_layout).gathered)
        attn_sharding = "batch" if splits and ((decodes and shared) or gathers) else over_heads(model)
    return ffn_layout, attn_sharding


def over_heads(model: Model) -> Literal["heads", "replicated"]:
    """The ``attn_sharding`` that splits query heads and no sequences: a cache of latent vectors is then replicated."""
    return "replicated" if model.attention.is_latent else "heads"


def resolved_layout(plan: Plan) -> dict[str, str | None]:
    """The keys of a point that say how a plan is laid out: no name of one chip, or where operators have shardings."""
    named = plan.chips > 1 and plan.shardings is None
    return {
        "ffn_layout": plan.ffn_layout if named else None,
        "attn_sharding": plan.attn_sharding if named else None,
    }


def resolved_form(plan: Plan, phase: str, input_len: int) -> str | None:
    """What ``latent_attention=auto`` became where every pass of the phase did the same; None for other attention."""
    if not plan.model.attention.is_latent:
        return None
    chunk = plan.prefill.chunk or input_len
    prompt = [(chunk, input_len)] if chunk < input_len else [(input_len, input_len)]
    prompt += [(input_len % chunk, input_len % chunk)] if chunk < input_len and input_len % chunk else []
    passes = {"prefill": prompt, "decode": [(1, plan.cache_len)], "generate": [*prompt, (1, plan.cache_len)]}[phase]
    found = {plan.absorbs(time, limit) for time, limit in passes}
    return "auto" if len(found) > 1 else "absorbed" if found == {True} else "expanded"
