"""Metrics that a row has only when it is read (:mod:`bench.rows.at_read` computes them)."""

from typing import Final

from bench.rows.metric import Metric

AT_READ: Final[dict[str, Metric]] = {
    metric.name: metric
    for metric in (
        Metric(
            name="cost_usd_per_mtok",
            heading="cost",
            unit="USD/Mtok",
            formula="cost_chip_s_per_token · USD a chip-hour / 3600 · 10⁶: US dollars for a million tokens, by the "
            "prices that the command was given; in no stored row.",
            needs=("cost_chip_s_per_token",),
            better="lower",
        ),
        Metric(
            name="energy_j",
            heading="energy",
            unit="J",
            formula="Energy of all chips in the time of latency_s, or of all requests of a serve point: measured by "
            "the device (energy_source nvml_…), or num_chips · tdp_w · latency_s (tdp), as if each drew its thermal "
            "design power throughout; hosts, network and cooling do not count.",
            needs=("latency_s",),
            better="lower",
        ),
    )
}
"""Name → metric."""
