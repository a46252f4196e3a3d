"""Metrics derived from the times of a point: one function each, whose docstring is the formula."""

from collections.abc import Callable
from functools import partial
from typing import Final

from bench.rows.metric import Basis, Better, Compute, Metric, docstring
from bench.rows.min_hbm_bytes import min_hbm_bytes
from engines.core.point import Point

DERIVED: Final[dict[str, Metric]] = {}
"""Name → metric, in the order of computation: a formula may use the metrics before it."""


def _derived(
    name: str,
    heading: str,
    unit: str,
    *,
    needs: tuple[str, ...],
    better: Better,
    scale: float = 1.0,
    spec: str = ".4g",
) -> Callable[[Compute], Compute]:
    """Register a function as a metric; its docstring is the formula."""

    def register(compute: Compute) -> Compute:
        DERIVED[name] = Metric(
            name=name,
            heading=heading,
            unit=unit,
            formula=docstring(compute),
            scale=scale,
            spec=spec,
            needs=needs,
            better=better,
            compute=compute,
        )
        return compute

    return register


_fraction = partial(_derived, unit="%", better="higher", scale=1e2, spec=".1f")


@_derived("latency_s", "latency", "s", needs=("latency_s",), better="lower")
def _latency(basis: Basis) -> float | None:
    """The total time of the phase: prefill, or all decode steps, or both."""
    return basis.latency_s


@_derived("ttft_s", "first token", "s", needs=("prefill_s",), better="lower")
def _ttft(basis: Basis) -> float | None:
    """The time of the prefill: a prefill point's latency, or the first stage of a generate point."""
    return basis.prefill_s


@_derived("step_time_s", "step time", "ms", needs=("decode_s",), better="lower", scale=1e3)
def _step_time(basis: Basis) -> float | None:
    """decode_s / decode steps: the mean time of one forward pass with one token per sequence; with speculation, which
    yields several in a pass, of a token."""
    if basis.decode_s is None or not basis.point.decode_steps:
        return None
    return basis.decode_s / basis.point.decode_steps


@_derived("tpot_s", "time per output token", "ms", needs=("latency_s", "ttft_s"), better="lower", scale=1e3)
def _tpot(basis: Basis) -> float | None:
    """(latency_s − ttft_s) / (output_len − 1), of a generate point with at least two output tokens."""
    if basis.point.phase != "generate" or basis.point.output_len < 2 or basis.prefill_s is None:
        return None
    return (basis.latency_s - basis.prefill_s) / (basis.point.output_len - 1)


@_derived("tokens_per_s", "tokens/s", "", needs=("latency_s",), better="higher")
def _tokens_per_s(basis: Basis) -> float | None:
    """Tokens / latency_s, with tokens = batch_size · (input_len | output_len | both) by phase; the tokens of a shared
    prefix count once."""
    return basis.tokens / basis.latency_s


@_derived("tokens_per_s_per_chip", "tokens/s/chip", "", needs=("tokens_per_s",), better="higher")
def _tokens_per_s_per_chip(basis: Basis) -> float | None:
    """tokens_per_s / num_chips."""
    return _ratio(basis.done["tokens_per_s"], float(basis.point.num_chips))


@_derived("tokens_per_s_per_user", "tokens/s/user", "", needs=("step_time_s",), better="higher")
def _tokens_per_s_per_user(basis: Basis) -> float | None:
    """1 / step_time_s: what one sequence of the batch sees while it decodes."""
    return _ratio(1.0, basis.done["step_time_s"])


@_fraction("mfu", "MFU", needs=("tokens_per_s", "peak_flops_per_s"))
def _mfu(basis: Basis) -> float | None:
    """tokens_per_s · 2N / (num_chips · peak_flops_per_s), with N the model's published parameter count and the dense
    peak of the activation dtype (Pope et al. 2022, section 2); attention FLOPs and padding do not count, nor the layers
    that a generated token left out (mean_layers).
    """
    return _ratio(_model_flops_per_chip_s(basis), basis.peak_flops_per_s)


@_fraction("mbu", "MBU", needs=("latency_s", "hbm_bytes_per_s"))
def _mbu(basis: Basis) -> float | None:
    """Minimum bytes to read / (num_chips · hbm_bytes_per_s · latency_s): every weight once per forward pass in its
    dtype (with the output embedding, without the input embedding) and, in each decode step, the KV cache of the context
    so far. None where that fits a GPU's L2 or a CPU's last-level cache, and the memory has to deliver nothing; and
    where a pass yields several tokens or ends early.
    """
    if basis.point.speculative != "none" or basis.point.exit_threshold is not None:
        return None
    return _ratio(_min_bytes_per_chip_s(basis), basis.hbm_bytes_per_s)


@_fraction("mfu_of_matmul", "MFU of matmul", needs=("tokens_per_s", "measured_matmul_flops_per_s"))
def _mfu_of_matmul(basis: Basis) -> float | None:
    """As mfu, but relative to the rate of a large square matmul measured in the same process on the same chips."""
    return _ratio(_model_flops_per_chip_s(basis), basis.matmul_flops_per_s)


@_fraction("mbu_of_copy", "MBU of copy", needs=("latency_s", "measured_copy_bytes_per_s"))
def _mbu_of_copy(basis: Basis) -> float | None:
    """As mbu, but relative to the bytes read and written per second by a copy measured in the same process on the same
    chips."""
    if basis.done["mbu"] is None:
        return None
    return _ratio(_min_bytes_per_chip_s(basis), basis.copy_bytes_per_s)


@_derived("cost_chip_s_per_token", "cost", "chip-ms/token", needs=("latency_s",), better="lower", scale=1e3)
def _cost(basis: Basis) -> float | None:
    """num_chips · latency_s / tokens (Pope et al. 2022, section 2): chip-seconds per token."""
    return basis.point.num_chips * basis.latency_s / basis.tokens


def _model_flops_per_chip_s(basis: Basis) -> float:
    model, point = basis.point.model, basis.point
    flops = basis.tokens * model.model_flops_per_token
    if basis.mean_layers is not None:
        of_layers = model.matmul_flops_per_token - 2 * model.head_params
        left_out = of_layers * (1 - basis.mean_layers / model.num_layers)
        flops -= point.batch_size * point.decode_steps * left_out
    return flops / basis.latency_s / point.num_chips


def multiplied_share(point: Point, tokens: int) -> float:
    """FLOPs that ``tokens`` take, as a share of the 2N a token that MFU counts: 2 a weight and token, of the
    output matrix for tokens alone that one is chosen behind, and those of attention to all positions before.
    """
    model, chosen = point.model, point.batch_size * (1 if point.phase == "prefill" else point.output_len)
    skipped = max(0, tokens - chosen) * 2 * model.head_params
    lengths = [] if point.phase == "decode" else [(point.input_len, point.input_len)]
    if point.phase != "prefill":
        lengths.append((point.decode_steps, point.input_len + point.decode_steps))
    attended = point.batch_size * sum(model.attention_flops(*each) for each in lengths)
    return (tokens * model.matmul_flops_per_token - skipped + attended) / (tokens * model.model_flops_per_token)


def _min_bytes_per_chip_s(basis: Basis) -> float:
    return min_hbm_bytes(basis.point, basis.cached_tokens) / (basis.point.num_chips * basis.latency_s)


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return None if numerator is None or denominator is None else numerator / denominator
