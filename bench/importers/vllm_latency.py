"""``vllm bench latency --output-json``: times of a whole batch, prefill and decode, in seconds.

The file does not state batch, lengths, model or machine, which were arguments of the command; its ``.pytorch.json``
holds those as well.
"""

from typing import Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from bench.importers.known import Known, by_rule, stated
from bench.importers.sample_checks import check_samples
from bench.importers.vllm_ci import ARGS, keep_args, setting_of_args
from engines.external.vllm.latency_file import LATENCY_KEYS, latencies

WANTED: Final = LATENCY_KEYS


def matches(content: Content) -> bool:
    """Whether the file has this format."""
    return content.has(*WANTED)


def entries(content: Content) -> list[ImportedResult]:
    """One generate point; its latency is the median of the file's samples, which its statistics must agree with."""
    samples_s, median_s = latencies(content.values, content.where)
    samples = Known(samples_s, "file: latencies")
    content.value("latencies")
    percentiles = {f"percentiles.{each}": float(each) for each in content.names("percentiles") if each.isdigit()}
    check_samples(content, samples_s, mean="avg_latency", std="std_latency", percentiles=percentiles)
    setting = setting_of_args(content)
    asked = stated(**{key: content.integer(f"{ARGS}.{key}") for key in ("batch_size", "input_len", "output_len")})
    keep_args(content)
    return [
        ImportedResult(
            phase="generate",
            timed_by="vllm bench latency",
            system="vllm",
            point={**setting.point, **asked, "first_token": by_rule("first_token_of_prompt", "prefill")},
            figures=stated(samples_s=samples, latency_s=by_rule("median_of_runs", median_s, samples)),
            model=setting.model,
            needs=setting.needs,
            check=setting.check,
        )
    ]
