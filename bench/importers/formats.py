"""The formats that can be imported, and which of them a file is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.importers import inferencex, maxtext, optimum_benchmark, vllm_latency, vllm_serve
from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from engines.core.errors import InvalidRequest, ShardbenchError


@dataclass(frozen=True, slots=True)
class Format:
    """``matches`` looks for the keys that no other format has; ``entries`` reads all that can be mapped."""

    matches: Callable[[Content], bool]
    entries: Callable[[Content], list[ImportedResult]]


FORMATS: Final[dict[str, Format]] = {
    "vllm-latency": Format(vllm_latency.matches, vllm_latency.entries),
    "vllm-serve": Format(vllm_serve.matches, vllm_serve.entries),
    "optimum-benchmark": Format(optimum_benchmark.matches, optimum_benchmark.entries),
    "inferencex": Format(inferencex.matches, inferencex.entries),
    "maxtext": Format(maxtext.matches, maxtext.entries),
}


def format_of(content: Content, asked: str) -> str:
    """The format's name: as asked, or the one that matches.

    Raises:
        InvalidRequest: the file is not of the format asked for.
        ShardbenchError: it is of none of them.
    """
    matching = [name for name, each in FORMATS.items() if each.matches(content)]
    if asked != "auto":
        if asked not in matching:
            is_one = f"{content.path} is {matching[0]}" if matching else f"{content.path} has not its keys"
            raise InvalidRequest("format", asked, f"is not the file's format: {is_one}", "leave format=auto")
        return asked
    if len(matching) != 1:
        raise ShardbenchError(f"{content.path}: is of no known format; those are {', '.join(FORMATS)}")
    return matching[0]
