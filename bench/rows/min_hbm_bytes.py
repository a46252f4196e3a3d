"""The minimum bytes that a point must read from HBM, the numerator of MBU, and in how many forward passes."""

from collections import Counter

from engines.core.dtypes import BYTES_PER_ELEMENT, stream_dtype, weight_bytes
from engines.core.layer_kind import seen_pairs
from engines.core.point import Point
from engines.core.routing import distinct_experts


def min_hbm_bytes(point: Point, cached_tokens: int | None = None) -> float:
    """Minimum bytes read from HBM by all chips together over the whole phase.

    Every forward pass (1 for a prefill, one per decode step) reads the weights: matrices in ``weight_dtype``, with the
    scale and the zero point of each of their groups, the output embedding in its own format, norm scales and biases in
    that of activations between matmuls. Of experts a pass reads those that its tokens hit, on average
    (:func:`engines.core.routing.distinct_experts`). Decode step i (from 0) reads the keys and values of
    input_len + i tokens of each sequence in ``kv_dtype``, so the steps read steps · (input_len + (steps − 1)/2) tokens;
    in a layer with a window, those that the new token sees in it.
    ``cached_tokens`` replaces batch_size · input_len if sequences share a prefix that is cached once. A prefill does
    not have to read the cache that it writes.
    """
    model, steps = point.model, point.decode_steps
    cached = point.batch_size * point.input_len if cached_tokens is None else cached_tokens
    whole = steps * (cached + point.batch_size * (steps - 1) / 2)
    weights = steps * _weights_of_a_pass(point, point.batch_size)
    if point.phase != "decode":
        weights += _weights_of_a_pass(point, point.batch_size * point.input_len)
    if model.encoder:
        return weights
    read_tokens = 0.0
    for window, layers in Counter(kind.window for kind in model.layer_kinds).items():
        # A step's own token is in its window and not read from the cache.
        pairs = seen_pairs(point.input_len, point.input_len + steps, window, model.window_kind) - steps
        read_tokens += layers * (whole if window is None else min(whole, float(point.batch_size * pairs)))
    return weights + read_tokens * model.attention.cached_elements * BYTES_PER_ELEMENT[point.kv_dtype]


def _weights_of_a_pass(point: Point, tokens: int) -> float:
    """Bytes of the weights that a pass over so many tokens reads."""
    model, experts = point.model, point.model.experts
    matrices, vectors = float(model.matmul_params), float(model.layers_params - model.matmul_params)
    if experts is not None:
        hit = float(distinct_experts(experts.count, experts.per_token, tokens, point.routing_skew))
        idle = (experts.count - hit) * sum(kind.has_experts for kind in model.layer_kinds)
        matrices -= idle * experts.expert.matmul_params
        vectors -= idle * (experts.expert.params - experts.expert.matmul_params)
    head = model.head_params * weight_bytes(point.head_format)
    vectors += model.final_norm_params + (model.vocab_size if model.lm_head_bias else 0)
    return matrices * point.weight_bytes + head + vectors * BYTES_PER_ELEMENT[stream_dtype(point.act_dtype)]


def forward_passes(point: Point) -> int:
    """How often a point's phase runs the model: once for a prefill, and once for each decode step."""
    return point.decode_steps + (point.phase != "decode")
