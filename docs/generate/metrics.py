"""The reference of metrics: the registry as tables."""

from bench.rows.metrics import METRICS, Metric


def page() -> str:
    """``reference/metrics.md``."""
    derived = [metric for metric in METRICS.values() if metric.compute is not None]
    observed = [metric for metric in METRICS.values() if metric.compute is None]
    return "\n".join(
        [
            "# Metrics",
            "",
            "Rows hold SI units and fractions under the key. Printed tables scale them to the unit in the heading. "
            "W&B summaries use the same keys.",
            "",
            "## Derived",
            "",
            "Computed from a point, the seconds of its stages and the peaks of one chip.",
            "",
            *_table(derived, with_needs=True),
            "",
            "## Observed",
            "",
            "Measured or stated by an engine.",
            "",
            *_table(observed, with_needs=False),
            "",
        ]
    )


def _table(metrics: list[Metric], *, with_needs: bool) -> list[str]:
    heads = ["key", "heading", "what it is", *(["better", "from"] if with_needs else [])]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for metric in metrics:
        cells = [f"`{metric.name}`", metric.title, escaped(metric.formula)]
        if with_needs:
            cells += [metric.better or "", ", ".join(f"`{need}`" for need in metric.needs)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def escaped(text: str) -> str:
    """Text as a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("*", "\\*")
