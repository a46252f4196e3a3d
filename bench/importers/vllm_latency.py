"""``vllm bench latency --output-json``: times of a whole batch, prefill and decode, in seconds.

The file does not state batch, lengths, model or machine, which were arguments of the command.
"""

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from engines.core.engine import Estimate, Facts
from engines.external.vllm.latency_file import LATENCY_KEYS, latencies


def matches(content: Content) -> bool:
    """Whether the file has this format."""
    return content.has(*LATENCY_KEYS)


def entries(content: Content) -> list[ImportedResult]:
    """One generate point; its latency is the median of the file's samples.

    The mean, standard deviation and percentiles are computed again from the samples.
    """
    samples_s, median_s = latencies(content.values, str(content.path))
    for key in (*LATENCY_KEYS, "std_latency", *(f"percentiles.{each}" for each in content.mapping("percentiles"))):
        content.raw(key)
    facts = Facts(details={"timed_by": "vllm bench latency"})
    estimate = Estimate(system="vllm", latency_s=median_s, samples_s=samples_s, facts=facts)
    return [ImportedResult(phase="generate", stated={"first_token": "prefill"}, estimate=estimate)]
