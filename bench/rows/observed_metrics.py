"""Metrics that an engine or a timer observes: what a row may hold beside the derived ones."""

from typing import Final

from bench.rows.metric import Metric


def _observed(name: str, heading: str, unit: str, formula: str, *, scale: float = 1.0, spec: str = ".4g") -> Metric:
    return Metric(name=name, heading=heading, unit=unit, formula=formula, scale=scale, spec=spec)


OBSERVED: Final[dict[str, Metric]] = {
    metric.name: metric
    for metric in (
        _observed("published_mfu", "stated MFU", "%", "The MFU that the source itself states.", scale=1e2, spec=".1f"),
        _observed("median", "median", "ms", "Median of samples_s, the measured latencies.", scale=1e3),
        _observed("ci_low", "interval from", "ms", "Lower end of the confidence interval of the median.", scale=1e3),
        _observed("ci_high", "interval to", "ms", "Upper end of the confidence interval of the median.", scale=1e3),
        _observed("mean", "mean", "ms", "Mean of samples_s.", scale=1e3),
        _observed("std", "standard deviation", "ms", "Standard deviation of samples_s.", scale=1e3),
        _observed("min", "least", "ms", "Least of samples_s.", scale=1e3),
        _observed("max", "most", "ms", "Most of samples_s.", scale=1e3),
        _observed("p90", "90th percentile", "ms", "90th percentile of samples_s.", scale=1e3),
        _observed("p99", "99th percentile", "ms", "99th percentile of samples_s.", scale=1e3),
        _observed("n", "samples", "", "Number of samples.", spec=".0f"),
        _observed("compile_s", "compile", "s", "Time to compile, before any sample."),
        _observed("compute_s", "compute", "ms", "Time of the arithmetic, of the whole phase.", scale=1e3),
        _observed("memory_s", "memory", "ms", "Time of reading and writing the chip's memory.", scale=1e3),
        _observed("communication_s", "links", "ms", "Time of the collectives on the links.", scale=1e3),
        _observed(
            "overlapped_s", "overlapped", "ms", "Time of the collectives that runs beside arithmetic.", scale=1e3
        ),
        _observed("overhead_s", "overhead", "ms", "Fixed time: per layer, per step, sampling.", scale=1e3),
        _observed("peak_hbm_bytes", "peak memory", "GiB/chip", "Most memory in use on one chip.", scale=2.0**-30),
        _observed("weights_bytes", "weights", "GiB/chip", "Weights on one chip.", scale=2.0**-30),
        _observed("kv_cache_bytes", "KV cache", "GiB/chip", "Keys and values on one chip.", scale=2.0**-30),
        _observed(
            "activations_bytes", "activations", "GiB/chip", "Activations and buffers on one chip.", scale=2.0**-30
        ),
        _observed(
            "max_relative_error", "output error", "", "max|output − reference| / max|reference| of logits.", spec=".2g"
        ),
        _observed("kl_divergence", "KL", "nats", "Mean of KL(reference ‖ output) over positions.", spec=".2g"),
        _observed(
            "bf16_max_relative_error", "error to bf16", "", "Quantised output against weights in bfloat16.", spec=".2g"
        ),
        _observed(
            "bf16_kl_divergence", "KL to bf16", "nats", "Quantised output against weights in bfloat16.", spec=".2g"
        ),
        _observed("peak_flops_per_s", "peak", "TFLOP/s", "One chip's dense peak, the denominator of mfu.", scale=1e-12),
        _observed(
            "hbm_bytes_per_s", "bandwidth", "GB/s", "One chip's memory bandwidth, the denominator of mbu.", scale=1e-9
        ),
        _observed(
            "measured_matmul_flops_per_s",
            "matmul",
            "TFLOP/s",
            "What a large square matmul reached on one chip.",
            scale=1e-12,
        ),
        _observed(
            "measured_copy_bytes_per_s",
            "copy",
            "GB/s",
            "Bytes read and written by a copy on one chip, a second.",
            scale=1e-9,
        ),
    )
}
"""Name → metric."""
