"""The formats that can be imported, and the detection of a file's format."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.importers import inferencex, maxtext, optimum_benchmark, vllm_latency, vllm_serve
from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from engines.core.errors import InvalidRequest, ShardbenchError


@dataclass(frozen=True, slots=True)
class Format:
    """``matches`` looks for keys that no other format has; ``entries`` reads every result that can be mapped."""

    matches: Callable[[Content], bool]
    entries: Callable[[Content], list[ImportedResult]]


FORMATS: Final[dict[str, Format]] = {
    "vllm-latency": Format(vllm_latency.matches, vllm_latency.entries),
    "vllm-serve": Format(vllm_serve.matches, vllm_serve.entries),
    "optimum-benchmark": Format(optimum_benchmark.matches, optimum_benchmark.entries),
    "inferencex": Format(inferencex.matches, inferencex.entries),
    "maxtext": Format(maxtext.matches, maxtext.entries),
}


def format_of(content: Content, requested: str) -> str:
    """The name of the file's format; ``requested`` is a format or ``auto``.

    Raises:
        InvalidRequest: the file does not have the requested format.
        ShardbenchError: ``auto``, and the file has no known format.
    """
    matching = [name for name, each in FORMATS.items() if each.matches(content)]
    if requested != "auto":
        if requested not in matching:
            found = f"{content.path} is {matching[0]}" if matching else f"{content.path} lacks its keys"
            raise InvalidRequest("format", requested, f"is not the file's format: {found}", "use format=auto")
        return requested
    if len(matching) != 1:
        raise ShardbenchError(f"{content.path}: has an unknown format; use a file of {', '.join(FORMATS)}")
    return matching[0]
