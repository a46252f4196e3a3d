"""Points as arrays: one entry a point in every array, so that a formula is written once for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from engines.analytic.chip_figures import check_links, peak_beside
from engines.analytic.constants import Constants, constants_of, matmul_of, stream_of
from engines.analytic.exit_record import exit_record
from engines.analytic.model_arrays import model_arrays
from engines.analytic.offload_rates import offload_record
from engines.analytic.routing_constants import routing_constants
from engines.core.dtypes import BYTES_PER_ELEMENT, stream_dtype, weight_bytes
from engines.core.layout import (
    ATTN_SHARDINGS,
    EXPERT_AXES,
    EXPERT_DISPATCHES,
    FFN_LAYOUTS,
    LATENT_ATTENTIONS,
    variant_of,
)
from engines.core.point import Point
from engines.core.point_keys import PHASES
from engines.weights.lengths import moments

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Arrays [points], broadcast against each other. Symbols as in :mod:`engines.core.model`.

    ``links_x`` is the number of links that a chip can receive on along axis x at once (2 on a ring, 1 on a line, 0
    where the axis has one chip). ``looped`` collectives need a program written for them, so a compiler's own
    partitioning (gspmd) has none; they send in ``directions`` along a ring and hold ``loop_shards`` shards of a tensor
    (the latency variant's double buffer is 4). ``max_head_shards`` is the next power of two of the heads. Of the
    feed-forward there are ``ffn_params`` elements of matrices, of which ``ffn_active_params`` multiply one token,
    ``ffn_inputs`` columns into it and ``ffn_hidden`` after its activation. ``phase``, ``layout`` and ``attention``
    index ``PHASES``, ``FFN_LAYOUTS`` and ``ATTN_SHARDINGS``. An encoder has no output matrix and no cache:
    its ``vocab`` and ``kv_bytes`` are 0.

    ``window_layers`` of the layers see a ``window`` of keys, in blocks of so many where ``chunked``. ``latent``
    attention has ``kv_latent`` and ``rotated`` elements a token, values of ``value_dim``, and queries from ``q_latent``
    (0: from the residual). ``dense_layers`` have the feed-forward above, ``expert_layers`` have ``num_experts``, of
    which a token goes to ``experts_per_token``, and one of ``shared_params`` for all; what is 0 is not there. Of
    ``expert_groups`` of them a token reaches ``expert_groups_kept``. ``latent_form``, ``expert_axes`` and ``dispatch``
    index ``LATENT_ATTENTIONS``, ``EXPERT_AXES`` and ``EXPERT_DISPATCHES``; ``data`` and ``expert_ranks`` are 0 where
    data_parallel and expert_parallel are left open. ``grouped_rows``, ``routing_s``: :mod:`.routing_constants`.

    ``input_len`` is the mean where prompts are packed, and ``prompt_seen`` then E[length²]/E[length]. ``norm_ranks``
    split the tokens of norms and residual, and ``micro_batches`` is 0 where it is left open.

    ``weight_bytes`` are those of a weight of a layer with its share of group scales, ``head_bytes`` those of one of the
    ``tables`` (embedding and output head, 1 where they are tied). ``act_bytes`` are those of an activation between
    matmuls, in which it is sent, too: 2 where matmuls are in 8 bits. ``peak`` is the projections', ``stream_peak``
    attention's, ``head_peak`` the logits'. ``weight_stream`` and ``matmul_share`` are the constants of those formats.
    A decode is ``passes`` of ``pass_tokens`` a sequence, which yield ``steps`` tokens: as many passes of one token,
    unless some are proposed (:mod:`engines.analytic.drafts`).
    Where tokens leave early, a step skips ``skipped`` of its layers and computes logits at ``exit_heads`` exits
    (:mod:`engines.analytic.exits`).
    Where a point ``offloads`` weights or ``offloads_kv``, they come at the rates of :mod:`engines.analytic.offload`,
    but for ``first_layers`` of them, which stay.
    """

    layers: Floats
    window_layers: Floats
    dense_layers: Floats
    expert_layers: Floats
    d_model: Floats
    heads: Floats
    kv_heads: Floats
    max_head_shards: Floats
    head_dim: Floats
    window: Floats
    chunked: Bools
    latent: Bools
    kv_latent: Floats
    q_latent: Floats
    rotated: Floats
    value_dim: Floats
    vocab: Floats
    tables: Floats
    ffn_params: Floats
    ffn_active_params: Floats
    ffn_inputs: Floats
    ffn_hidden: Floats
    num_experts: Floats
    experts_per_token: Floats
    expert_params: Floats
    expert_inputs: Floats
    expert_hidden: Floats
    expert_groups: Floats
    expert_groups_kept: Floats
    shared_params: Floats
    shared_inputs: Floats
    shared_hidden: Floats
    serial: Bools
    mfu_params: Floats
    peak: Floats
    stream_peak: Floats
    head_peak: Floats
    hbm_bytes: Floats
    hbm_bytes_per_s: Floats
    link_bytes_per_s: Floats
    node_size: Floats
    network_bytes_per_s: Floats
    gpu: Bools
    x: Floats
    y: Floats
    z: Floats
    links_x: Floats
    links_y: Floats
    links_z: Floats
    tensor: Floats
    pipeline: Floats
    data: Floats
    norm_ranks: Floats
    micro_batches: Floats
    expert_ranks: Floats
    batch: Floats
    input_len: Floats
    prompt_seen: Floats
    output_len: Floats
    steps: Floats
    passes: Floats
    pass_tokens: Floats
    phase: Ints
    layout: Ints
    attention: Ints
    latent_form: Ints
    expert_axes: Ints
    dispatch: Ints
    skew: Floats
    capacity: Floats
    looped: Bools
    directions: Floats
    loop_shards: Floats
    weight_bytes: Floats
    head_bytes: Floats
    act_bytes: Floats
    kv_bytes: Floats
    weight_stream: Floats
    matmul_share: Floats
    matmul_efficiency: Floats
    half_width: Floats
    hbm_efficiency: Floats
    roofline_overlap: Floats
    link_efficiency: Floats
    axis_gain: Floats
    network_efficiency: Floats
    loop_hidden: Floats
    prefetch: Floats
    layer_s: Floats
    host_layer_s: Floats
    host_prefill_layer_s: Floats
    step_s: Floats
    request_s: Floats
    collective_s: Floats
    hop_s: Floats
    network_collective_s: Floats
    stage_s: Floats
    sampling_s_per_logit: Floats
    score_passes: Floats
    vector_passes: Floats
    cache_efficiency: Floats
    kv_reread: Floats
    attention_matmul: Floats
    prefill_tokens: Floats
    cache_grows: Floats
    all_logits: Floats
    hbm_usable: Floats
    grouped_rows: Floats
    routing_s: Floats
    skipped: Floats
    exit_heads: Floats
    offloads: Bools
    offloads_kv: Bools
    first_layers: Floats
    host_bytes_per_s: Floats
    nvme_bytes_per_s: Floats

    def __len__(self) -> int:
        return max(array.size for array in self.arrays().values())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Every array by its name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def take(self, index: Any) -> Self:
        """The points of ``index`` (a slice, a mask or positions); arrays of one entry stay as they are."""
        size = len(self)
        picked = {
            name: array[index] if array.size == size and size > 1 else array for name, array in self.arrays().items()
        }
        return type(self)(**picked)

    @property
    def chips(self) -> Floats:
        """n: X·Y·Z of a torus, tensor × pipeline of GPUs."""
        return np.where(self.gpu, self.tensor * self.pipeline, self.x * self.y * self.z)


def grid_of(points: Sequence[Point], constants: Constants | None = None) -> Grid:
    """Arrays of ``points``, with each chip's constants or with ``constants`` for all.

    Raises:
        InvalidRequest: no such slice exists.
        Unsupported: the chip has no datasheet, or no peak for the activations' dtype.
    """
    columns: dict[str, list[Any]] = {field.name: [] for field in fields(Grid)}
    for point in points:
        for name, value in record(point, constants).items():
            columns[name].append(value)
    return Grid(**{name: np.asarray(values) for name, values in columns.items()})


def record(point: Point, constants: Constants | None = None) -> dict[str, Any]:
    """One point as the plain values of a grid's arrays."""
    model, chip = point.model, point.chip
    calibrated = constants_of(point) if constants is None else constants
    place, variant = point.slice(), variant_of(collectives_of(point))
    x, y, z = place.mesh_shape
    links = [0 if size == 1 else 1 + wrap for size, wrap in zip(place.mesh_shape, place.wrap, strict=True)]
    gpu, beside = chip.kind == "gpu", peak_beside(chip, point.act_dtype)
    routing = routing_constants(chip.kind)
    prompt = moments(point.lengths if point.padding == "packed" else "equal", point.input_len)
    if gpu and point.num_chips > 1:
        check_links(chip, point.num_chips)
    return {
        **model_arrays(model),
        "peak": chip.peak(point.act_dtype) * (2 if point.is_sparse else 1),
        "stream_peak": beside,
        "head_peak": chip.peak(point.act_dtype) if point.head_format == point.act_dtype else beside,
        "hbm_bytes": float(chip.hbm_bytes or np.nan),
        "hbm_bytes_per_s": float(chip.hbm_bytes_per_s or np.nan),
        "link_bytes_per_s": float((chip.node_bytes_per_s if gpu else chip.link_bytes_per_s) or np.nan),
        "node_size": float(chip.node_size),
        "network_bytes_per_s": float(chip.network_bytes_per_s or np.nan),
        "gpu": gpu,
        "x": float(x),
        "y": float(y),
        "z": float(z),
        "links_x": float(links[0]),
        "links_y": float(links[1]),
        "links_z": float(links[2]),
        "tensor": float(point.tensor_degree),
        "pipeline": float(point.pipeline_degree),
        "data": float(point.data_parallel or 0),
        "micro_batches": float(point.micro_batches or 0),
        "norm_ranks": float(point.tensor_degree if point.sequence_parallel == "norms" else 1),
        "expert_ranks": float(point.expert_parallel or 0),
        "batch": float(point.batch_size),
        "input_len": prompt.mean,
        "prompt_seen": prompt.keys_a_token if point.input_len else 0.0,
        "output_len": float(point.output_len),
        "steps": float(point.decode_steps),
        "passes": float(point.decode_steps),
        "pass_tokens": 1.0,
        "phase": PHASES.index(point.phase),
        "layout": FFN_LAYOUTS.index(point.ffn_layout),
        "attention": ATTN_SHARDINGS.index(point.attn_sharding),
        "latent_form": LATENT_ATTENTIONS.index(point.latent_attention),
        "expert_axes": EXPERT_AXES.index(point.expert_axes),
        "dispatch": EXPERT_DISPATCHES.index(point.expert_dispatch),
        "skew": point.routing_skew,
        "capacity": point.expert_capacity or 0.0,
        "looped": variant.looped,
        "directions": float(variant.directions),
        "loop_shards": float(variant.buffered_shards),
        "weight_bytes": point.weight_bytes,
        "head_bytes": weight_bytes(point.head_format),
        "act_bytes": BYTES_PER_ELEMENT[stream_dtype(point.act_dtype)],
        "kv_bytes": 0.0 if model.encoder else BYTES_PER_ELEMENT[point.kv_dtype],
        **{name: getattr(calibrated, constant) for name, constant in constants_read(point).items()},
        "grouped_rows": routing.grouped_rows,
        "routing_s": routing.routing_s,
        **exit_record(point),
        **offload_record(point),
    }


def constants_read(point: Point) -> dict[str, str]:
    """Array of a grid → the constant that a point's entry of it is."""
    own = {each.name: each.name for each in fields(Constants)}
    read = {name: own[name] for name in (each.name for each in fields(Grid)) if name in own}
    read |= {"weight_stream": stream_of(point.weight_dtype), "matmul_share": matmul_of(point.act_dtype)}
    return read | ({"score_passes": "encoder_score_passes"} if point.model.encoder else {})


def collectives_of(point: Point) -> str:
    """How the collectives run where the point leaves it open: on TPUs the paper's way, looped; else plain."""
    if point.partitioner == "gspmd" or point.chip.kind != "tpu":
        return "plain"
    return "throughput" if point.collectives == "auto" else point.collectives
