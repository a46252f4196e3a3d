"""``vllm bench throughput --output-json``: many prompts given at once, with the time until the last has its answer."""

from typing import Final

from bench.importers.content import Content
from bench.importers.entry import ImportedResult
from bench.importers.known import Known, by_rule
from bench.importers.served import Served
from bench.importers.serving import serve_result
from bench.importers.vllm_ci import ARGS, keep_args, setting_of_args

WANTED: Final = ("elapsed_time", "num_requests", "total_num_tokens", "requests_per_second", "tokens_per_second")


def matches(content: Content) -> bool:
    """Whether the file has this format."""
    return content.has("elapsed_time", "num_requests", "total_num_tokens")


def entries(content: Content) -> list[ImportedResult]:
    """One serve point at an infinite request rate; how its tokens divide into input and output is not in the file."""
    requests = content.required("num_requests", content.integer("num_requests"))
    tokens = content.required("total_num_tokens", content.integer("total_num_tokens"))
    served = Served(
        prompts=requests,
        completed=requests,
        duration_s=content.required("elapsed_time", content.number("elapsed_time")),
        tokens=tokens,
        requests_per_s=content.number("requests_per_second"),
        tokens_per_s=content.number("tokens_per_second"),
        request_rate_per_s=by_rule("all_at_once", "inf"),
    )
    setting = setting_of_args(content)
    point = {**setting.point, **_lengths(content, requests, tokens)}
    keep_args(content)
    return [
        serve_result(
            content,
            served,
            timed_by="vllm bench throughput",
            system="vllm",
            point=point,
            model=content.text("model_id") or setting.model,
            needs=setting.needs,
            check=setting.check,
        )
    ]


def _lengths(content: Content, requests: Known, tokens: Known) -> dict[str, Known]:
    """The lengths that were asked for, where they make the tokens that were counted."""
    lengths = [content.integer(f"{ARGS}.{key}") for key in ("input_len", "output_len")]
    if lengths[0] is None or lengths[1] is None:
        return {}
    if requests.value * (lengths[0].value + lengths[1].value) != tokens.value:
        return {}
    names = ("input_len", "output_len")
    return {
        name: by_rule("lengths_asked", each.value, each, *lengths)
        for name, each in zip(names, lengths, strict=True)
        if each is not None
    }
