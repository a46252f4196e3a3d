"""Metrics observed by an engine or a timer, as opposed to the derived ones."""

from typing import Final

from bench.rows.metric import Metric


def _observed(name: str, heading: str, unit: str, formula: str, *, scale: float = 1.0, spec: str = ".4g") -> Metric:
    return Metric(name=name, heading=heading, unit=unit, formula=formula, scale=scale, spec=spec)


OBSERVED: Final[dict[str, Metric]] = {
    metric.name: metric
    for metric in (
        _observed("published_mfu", "stated MFU", "%", "The MFU stated by the source.", scale=1e2, spec=".1f"),
        _observed("latency_low_s", "80% from", "s", "Lower end of a prediction's 80% interval of the latency."),
        _observed("latency_high_s", "80% to", "s", "Upper end of a prediction's 80% interval of the latency."),
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
        _observed("compile_s", "compile", "s", "Compile time, not part of any sample."),
        _observed("compute_s", "compute", "ms", "Compute time of the whole phase.", scale=1e3),
        _observed("memory_s", "memory", "ms", "Time of reading and writing HBM.", scale=1e3),
        _observed("communication_s", "links", "ms", "Time of the collectives.", scale=1e3),
        _observed("overlapped_s", "overlapped", "ms", "Time of the collectives that overlaps compute.", scale=1e3),
        _observed("overhead_s", "overhead", "ms", "Fixed time per layer and per step, and sampling.", scale=1e3),
        _observed("peak_hbm_bytes", "peak memory", "GiB/chip", "Peak memory use of one chip.", scale=2.0**-30),
        _observed("weights_bytes", "weights", "GiB/chip", "Weights of one chip.", scale=2.0**-30),
        _observed("kv_cache_bytes", "KV cache", "GiB/chip", "Keys and values of one chip.", scale=2.0**-30),
        _observed(
            "activations_bytes", "activations", "GiB/chip", "Activations and buffers of one chip.", scale=2.0**-30
        ),
        _observed(
            "max_relative_error", "output error", "", "max|output − reference| / max|reference| of logits.", spec=".2g"
        ),
        _observed("kl_divergence", "KL", "nats", "Mean of KL(reference ‖ output) over positions.", spec=".2g"),
        _observed(
            "bf16_max_relative_error",
            "error to bf16",
            "",
            "Output with quantised weights against output with bfloat16 weights.",
            spec=".2g",
        ),
        _observed(
            "bf16_kl_divergence",
            "KL to bf16",
            "nats",
            "Output with quantised weights against output with bfloat16 weights.",
            spec=".2g",
        ),
        _observed(
            "tokens_per_turn", "tokens/turn", "", "Tokens that a turn of speculative decoding yields a sequence."
        ),
        _observed("mean_layers", "layers", "", "Layers that a generated token passed before it left, on average."),
        _observed("quality_kl", "KL to whole", "nats", "Mean KL(whole model ‖ this one) over positions.", spec=".3g"),
        _observed(
            "quality_agreement",
            "same token",
            "%",
            "Share of positions whose most likely next token is the whole model's.",
            scale=1e2,
            spec=".1f",
        ),
        _observed("quality_perplexity", "perplexity", "", "exp of the mean loss of a token of a held-out text."),
        _observed("peak_flops_per_s", "peak", "TFLOP/s", "One chip's dense peak, the denominator of mfu.", scale=1e-12),
        _observed(
            "hbm_bytes_per_s", "bandwidth", "GB/s", "One chip's memory bandwidth, the denominator of mbu.", scale=1e-9
        ),
        _observed(
            "measured_matmul_flops_per_s",
            "matmul",
            "TFLOP/s",
            "Rate of a large square matmul on one chip.",
            scale=1e-12,
        ),
        _observed(
            "measured_copy_bytes_per_s",
            "copy",
            "GB/s",
            "Bytes read and written per second by a copy on one chip.",
            scale=1e-9,
        ),
    )
}
"""Name → metric."""
