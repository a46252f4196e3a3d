"""``vllm bench latency --output-json``: times of a whole batch, prompt and answer, in seconds.

The file says nothing of batch, lengths, model or machine: those were the command's arguments.
"""

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from engines.core.engine import Estimate, Facts
from engines.external.vllm.latency_file import LATENCY_KEYS, latencies


def matches(content: Content) -> bool:
    """Whether the file is of this format."""
    return content.has(*LATENCY_KEYS)


def entries(content: Content) -> list[ImportedResult]:
    """One generate point; its latency is the median of the file's samples.

    The file's own mean, deviation and percentiles are of those same samples and are made again from them.
    """
    samples_s, median_s = latencies(content.values, str(content.path))
    for key in (*LATENCY_KEYS, "std_latency", *(f"percentiles.{each}" for each in content.mapping("percentiles"))):
        content.raw(key)
    facts = Facts(details={"timed_by": "vllm bench latency"})
    estimate = Estimate(system="vllm", latency_s=median_s, samples_s=samples_s, facts=facts)
    return [ImportedResult(phase="generate", stated={"first_token": "prefill"}, estimate=estimate)]
