"""The formats that can be imported, and the detection of a file's format."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.importers import (
    aiperf,
    asv,
    guidellm,
    inferencex,
    jetstream,
    llama_bench,
    llama_bench_text,
    llmperf,
    maxtext,
    maxtext_sweep,
    mlperf_summary,
    optimum_benchmark,
    sglang_one_batch,
    sglang_serve,
    sglang_throughput,
    trtllm_bench,
    vllm_ci,
    vllm_latency,
    vllm_serve,
    vllm_throughput,
)
from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from engines.core.errors import InvalidRequest, ShardbenchError


@dataclass(frozen=True, slots=True)
class Format:
    """How a format is told and read.

    ``matches`` looks for keys that no other format has, ``entries`` reads every result that can be mapped. ``wanted``
    are the keys by which a file of no format is told what it lacks of the nearest. ``parse`` makes mappings of a text
    that is no JSON, and None of a text of another format; ``gather`` does so of JSON that is not one mapping a result.
    """

    matches: Callable[[Content], bool]
    entries: Callable[[Content], list[ImportedResult]]
    wanted: Sequence[str]
    parse: Callable[[str], list[Mapping[str, Any]] | None] | None = None
    gather: Callable[[Any], list[Mapping[str, Any]] | None] | None = None


FORMATS: Final[dict[str, Format]] = {
    "vllm-latency": Format(vllm_latency.matches, vllm_latency.entries, vllm_latency.WANTED, gather=vllm_ci.gather),
    "vllm-throughput": Format(vllm_throughput.matches, vllm_throughput.entries, vllm_throughput.WANTED),
    "vllm-serve": Format(vllm_serve.matches, vllm_serve.entries, vllm_serve.WANTED),
    "sglang-one-batch": Format(sglang_one_batch.matches, sglang_one_batch.entries, sglang_one_batch.WANTED),
    "sglang-throughput": Format(sglang_throughput.matches, sglang_throughput.entries, sglang_throughput.WANTED),
    "sglang-serve": Format(sglang_serve.matches, sglang_serve.entries, sglang_serve.WANTED),
    "trtllm-bench": Format(trtllm_bench.matches, trtllm_bench.entries, trtllm_bench.WANTED),
    "llama-bench": Format(llama_bench.matches, llama_bench.entries, llama_bench.WANTED, parse=llama_bench_text.parse),
    "optimum-benchmark": Format(optimum_benchmark.matches, optimum_benchmark.entries, optimum_benchmark.WANTED),
    "inferencex": Format(inferencex.matches, inferencex.entries, inferencex.WANTED),
    "aiperf": Format(aiperf.matches, aiperf.entries, aiperf.WANTED),
    "guidellm": Format(guidellm.matches, guidellm.entries, guidellm.WANTED, gather=guidellm.gather),
    "llmperf": Format(llmperf.matches, llmperf.entries, llmperf.WANTED),
    "jetstream": Format(jetstream.matches, jetstream.entries, jetstream.WANTED),
    "maxtext": Format(maxtext.matches, maxtext.entries, maxtext.WANTED),
    "maxtext-sweep": Format(maxtext_sweep.matches, maxtext_sweep.entries, maxtext_sweep.WANTED),
    "asv": Format(asv.matches, asv.entries, asv.WANTED, gather=asv.gather),
    "mlperf": Format(mlperf_summary.matches, mlperf_summary.entries, mlperf_summary.WANTED, parse=mlperf_summary.parse),
}


def format_of(content: Content, requested: str) -> str:
    """The name of the file's format; ``requested`` is a format or ``auto``.

    Raises:
        InvalidRequest: the file does not have the requested format.
        ShardbenchError: ``auto``, and the file has no known format, or keys of several.
    """
    matching = [name for name, each in FORMATS.items() if each.matches(content)]
    if requested != "auto":
        if requested not in matching:
            lacks = ", ".join(_lacking(content, FORMATS[requested]))
            found = f"{content.where} is {matching[0]}" if matching else f"{content.where} lacks {lacks or 'its keys'}"
            raise InvalidRequest("format", requested, f"is not the file's format: {found}", "use format=auto")
        return requested
    if len(matching) > 1:
        raise ShardbenchError(f"{content.where}: has the keys of {' and '.join(matching)}; add format=…, one of them")
    if not matching:
        raise ShardbenchError(f"{content.where}: has an unknown format: {_nearest(content)}")
    return matching[0]


def _nearest(content: Content) -> str:
    """What the file lacks of the format that it comes nearest to, and the formats known."""
    known = f"known are {', '.join(FORMATS)}"
    shares = {name: 1 - len(_lacking(content, each)) / len(each.wanted) for name, each in FORMATS.items()}
    nearest = max(shares, key=lambda name: shares[name])
    if not shares[nearest]:
        return f"it has no key of any; {known}"
    return f"the nearest is {nearest}, of which it lacks {', '.join(_lacking(content, FORMATS[nearest]))}; {known}"


def _lacking(content: Content, wanted: Format) -> list[str]:
    return [key for key in wanted.wanted if not content.has(key)]
