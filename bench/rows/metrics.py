"""Every figure of a row: its formula, its heading and its unit, in one registry.

Rows, W&B keys, table headings and the documentation read :data:`METRICS`, so a figure means the same everywhere. A row
holds SI units and fractions under the metric's ``name``; only a printed table scales them (``MFU (%)``).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from bench.rows.min_hbm_bytes import least_bytes
from engines.core.errors import InvalidRequest
from engines.core.point import Point

Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What the formulas start from: a point, seconds of its stages, one chip's peaks, and the metrics before.

    ``tokens`` passed through the model and ``cached_tokens`` are what the first decode step reads.
    """

    point: Point
    tokens: int
    cached_tokens: int
    latency_s: float
    prefill_s: float | None
    decode_s: float | None
    peak_flops_per_s: float | None
    hbm_bytes_per_s: float | None
    matmul_flops_per_s: float | None
    copy_bytes_per_s: float | None
    done: Mapping[str, float | None]


Compute = Callable[[Basis], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure. ``name`` is the row's key, ``scale`` and ``spec`` are for tables, ``needs`` names what it is from.

    ``formula`` is one sentence. ``compute`` is None for what is observed and not derived (a median, bytes of memory).
    """

    name: str
    heading: str
    unit: str
    formula: str
    scale: float = 1.0
    spec: str = ".4g"
    needs: tuple[str, ...] = ()
    better: Better | None = None
    compute: Compute | None = None

    @property
    def title(self) -> str:
        """The heading of a table's column: ``step time (ms)``."""
        return f"{self.heading} ({self.unit})" if self.unit else self.heading

    def show(self, value: float | None) -> str:
        """The value as a table prints it, scaled; nothing for None or NaN."""
        if value is None or math.isnan(value):
            return ""
        return format(value * self.scale, self.spec)


METRICS: Final[dict[str, Metric]] = {}
"""Name → metric: what is derived first, then what is observed."""


def _observed(name: str, heading: str, unit: str, formula: str, *, scale: float = 1.0, spec: str = ".4g") -> None:
    METRICS[name] = Metric(name=name, heading=heading, unit=unit, formula=formula, scale=scale, spec=spec)


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
        METRICS[name] = Metric(
            name=name,
            heading=heading,
            unit=unit,
            formula=" ".join((compute.__doc__ or "").split()),
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
    """The phase's total time: prefill, or all decode steps, or both."""
    return basis.latency_s


@_derived("ttft_s", "first token", "s", needs=("prefill_s",), better="lower")
def _ttft(basis: Basis) -> float | None:
    """The prefill's time: a prefill point's latency, the first stage of a generate point."""
    return basis.prefill_s


@_derived("step_time_s", "step time", "ms", needs=("decode_s",), better="lower", scale=1e3)
def _step_time(basis: Basis) -> float | None:
    """decode_s / decode steps: the mean time of one forward pass with one token a sequence."""
    if basis.decode_s is None or not basis.point.decode_steps:
        return None
    return basis.decode_s / basis.point.decode_steps


@_derived("tpot_s", "time per output token", "ms", needs=("latency_s", "ttft_s"), better="lower", scale=1e3)
def _tpot(basis: Basis) -> float | None:
    """(latency_s − ttft_s) / (output_len − 1), of a generate point with two output tokens or more."""
    if basis.point.phase != "generate" or basis.point.output_len < 2 or basis.prefill_s is None:
        return None
    return (basis.latency_s - basis.prefill_s) / (basis.point.output_len - 1)


@_derived("tokens_per_s", "tokens/s", "", needs=("latency_s",), better="higher")
def _tokens_per_s(basis: Basis) -> float | None:
    """Tokens / latency_s, with tokens = batch_size · (input_len | output_len | both) by phase; those of a prefix that
    sequences share count once."""
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
    peak of the activation dtype (Pope et al. 2022, section 2): neither attention nor padding inflates it.
    """
    return _ratio(_model_flops_per_chip_s(basis), basis.peak_flops_per_s)


@_fraction("mbu", "MBU", needs=("latency_s", "hbm_bytes_per_s"))
def _mbu(basis: Basis) -> float | None:
    """Least bytes to read / (num_chips · hbm_bytes_per_s · latency_s): every weight once a forward pass in its dtype
    (output embedding included, input embedding not) and, each decode step, the cache that its context has by then.
    Above 100% the reads came from a faster memory (a small model in the caches of a CPU).
    """
    return _ratio(_least_bytes_per_chip_s(basis), basis.hbm_bytes_per_s)


@_fraction("mfu_of_matmul", "MFU of matmul", needs=("tokens_per_s", "measured_matmul_flops_per_s"))
def _mfu_of_matmul(basis: Basis) -> float | None:
    """As mfu, over the rate of a large square matmul measured in the same process on the same chips."""
    return _ratio(_model_flops_per_chip_s(basis), basis.matmul_flops_per_s)


@_fraction("mbu_of_copy", "MBU of copy", needs=("latency_s", "measured_copy_bytes_per_s"))
def _mbu_of_copy(basis: Basis) -> float | None:
    """As mbu, over the bytes read and written a second by a copy measured in the same process on the same chips."""
    return _ratio(_least_bytes_per_chip_s(basis), basis.copy_bytes_per_s)


@_derived("cost_chip_s_per_token", "cost", "chip-ms/token", needs=("latency_s",), better="lower", scale=1e3)
def _cost(basis: Basis) -> float | None:
    """num_chips · latency_s / tokens (Pope et al. 2022, section 2): chip-seconds a token."""
    return basis.point.num_chips * basis.latency_s / basis.tokens


def derive(
    point: Point,
    *,
    latency_s: float,
    prefill_s: float | None = None,
    decode_s: float | None = None,
    peak_flops_per_s: float | None = None,
    hbm_bytes_per_s: float | None = None,
    matmul_flops_per_s: float | None = None,
    copy_bytes_per_s: float | None = None,
    tokens: int | None = None,
    cached_tokens: int | None = None,
) -> dict[str, float | None]:
    """Every derived metric of one answer; None where a figure that it needs is unknown or has no meaning.

    ``latency_s`` is the phase's total, ``prefill_s`` and ``decode_s`` the totals of its stages. A prefill or decode
    point is one stage, so its own default to ``latency_s``; of a generate point, one stage given is the other known.
    Peaks are one chip's: the dense peak of ``point.act_dtype`` and the memory's bandwidth; what a matmul and a copy
    reached there stands apart. ``tokens`` and ``cached_tokens`` (:class:`Basis`) are the point's own unless given.

    Raises:
        InvalidRequest: a time or a peak is not positive.
    """
    for key, value in (
        ("latency_s", latency_s),
        ("prefill_s", prefill_s),
        ("decode_s", decode_s),
        ("peak_flops_per_s", peak_flops_per_s),
        ("hbm_bytes_per_s", hbm_bytes_per_s),
        ("matmul_flops_per_s", matmul_flops_per_s),
        ("copy_bytes_per_s", copy_bytes_per_s),
    ):
        if value is not None and not value > 0:
            raise InvalidRequest(key, value, "is not positive", "no metric can be computed from it")
    if point.phase == "prefill":
        prefill_s, decode_s = latency_s, None
    elif point.phase == "decode":
        prefill_s, decode_s = None, latency_s if decode_s is None else decode_s
    elif decode_s is None and prefill_s is not None and prefill_s < latency_s:
        decode_s = latency_s - prefill_s
    elif prefill_s is None and decode_s is not None and decode_s < latency_s:
        prefill_s = latency_s - decode_s
    done: dict[str, float | None] = {}
    basis = Basis(
        point=point,
        tokens=point.tokens if tokens is None else tokens,
        cached_tokens=point.batch_size * point.input_len if cached_tokens is None else cached_tokens,
        latency_s=latency_s,
        prefill_s=prefill_s,
        decode_s=decode_s,
        peak_flops_per_s=peak_flops_per_s,
        hbm_bytes_per_s=hbm_bytes_per_s,
        matmul_flops_per_s=matmul_flops_per_s,
        copy_bytes_per_s=copy_bytes_per_s,
        done=done,
    )
    for name, metric in METRICS.items():
        if metric.compute is not None:
            done[name] = metric.compute(basis)
    return done


def metrics_table() -> str:
    """Every metric as a Markdown table: the key of a row, the heading of a table, what it is."""
    lines = ["| key of a row | heading in a table | what it is |", "|---|---|---|"]
    for metric in METRICS.values():
        formula = metric.formula.replace("|", "\\|")
        lines.append(f"| `{metric.name}` | {metric.title} | {formula} |")
    return "\n".join(lines) + "\n"


def _model_flops_per_chip_s(basis: Basis) -> float:
    flops_per_s = basis.tokens / basis.latency_s * basis.point.model.model_flops_per_token
    return flops_per_s / basis.point.num_chips


def _least_bytes_per_chip_s(basis: Basis) -> float:
    return least_bytes(basis.point, basis.cached_tokens) / (basis.point.num_chips * basis.latency_s)


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or below is None else above / below


_observed("published_mfu", "stated MFU", "%", "The MFU that the source itself states.", scale=1e2, spec=".1f")
_observed("median", "median", "ms", "Median of samples_s, the measured latencies.", scale=1e3)
_observed("ci_low", "interval from", "ms", "Lower end of the confidence interval of the median.", scale=1e3)
_observed("ci_high", "interval to", "ms", "Upper end of the confidence interval of the median.", scale=1e3)
_observed("mean", "mean", "ms", "Mean of samples_s.", scale=1e3)
_observed("std", "standard deviation", "ms", "Standard deviation of samples_s.", scale=1e3)
_observed("min", "least", "ms", "Least of samples_s.", scale=1e3)
_observed("max", "most", "ms", "Most of samples_s.", scale=1e3)
_observed("p90", "90th percentile", "ms", "90th percentile of samples_s.", scale=1e3)
_observed("p99", "99th percentile", "ms", "99th percentile of samples_s.", scale=1e3)
_observed("n", "samples", "", "Number of samples.", spec=".0f")
_observed("compile_s", "compile", "s", "Time to compile, before any sample.")
_observed("compute_s", "compute", "ms", "Time of the arithmetic, of the whole phase.", scale=1e3)
_observed("memory_s", "memory", "ms", "Time of reading and writing the chip's memory.", scale=1e3)
_observed("communication_s", "links", "ms", "Time of the collectives on the links.", scale=1e3)
_observed("overlapped_s", "overlapped", "ms", "Time of the collectives that runs beside arithmetic.", scale=1e3)
_observed("overhead_s", "overhead", "ms", "Fixed time: per layer, per step, sampling.", scale=1e3)
_observed("peak_hbm_bytes", "peak memory", "GiB/chip", "Most memory in use on one chip.", scale=2.0**-30)
_observed("weights_bytes", "weights", "GiB/chip", "Weights on one chip.", scale=2.0**-30)
_observed("kv_cache_bytes", "KV cache", "GiB/chip", "Keys and values on one chip.", scale=2.0**-30)
_observed("activations_bytes", "activations", "GiB/chip", "Activations and buffers on one chip.", scale=2.0**-30)
_observed("max_relative_error", "output error", "", "max|output − reference| / max|reference| of logits.", spec=".2g")
_observed("kl_divergence", "KL", "nats", "Mean of KL(reference ‖ output) over positions.", spec=".2g")
_observed("bf16_max_relative_error", "error to bf16", "", "Quantised output against weights in bfloat16.", spec=".2g")
_observed("bf16_kl_divergence", "KL to bf16", "nats", "Quantised output against weights in bfloat16.", spec=".2g")
_observed("peak_flops_per_s", "peak", "TFLOP/s", "One chip's dense peak, the denominator of mfu.", scale=1e-12)
_observed("hbm_bytes_per_s", "bandwidth", "GB/s", "One chip's memory bandwidth, the denominator of mbu.", scale=1e-9)
_observed(
    "measured_matmul_flops_per_s", "matmul", "TFLOP/s", "What a large square matmul reached on one chip.", scale=1e-12
)
_observed(
    "measured_copy_bytes_per_s", "copy", "GB/s", "Bytes read and written by a copy on one chip, a second.", scale=1e-9
)
