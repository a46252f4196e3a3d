"""A server under load as a row: what it was asked, how fast it answered, how its requests fared."""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, Final

from bench.importers.content import Content, is_number
from bench.importers.entry import ImportedResult
from bench.importers.known import Known, by_rule, stated
from bench.importers.served import LOAD_NAMES, NOT_IN_LOAD, Served
from bench.importers.serving_checks import check_statistics, check_totals
from engines.core.point import Point

STATISTICS: Final = re.compile(r"(mean|median|std|min|max|p\d+(?:\.\d+)?)_(ttft|tpot|itl|e2el)")
"""Names of statistics over requests, as vLLM writes them; a unit may follow."""


def serve_result(
    content: Content,
    served: Served,
    *,
    timed_by: str,
    system: str,
    point: Mapping[str, Known] | None = None,
    model: Known | None = None,
    hw: Known | None = None,
    needs: Mapping[str, str] | None = None,
    invalid_reason: str | None = None,
    mixed_lengths: bool = False,
    check: Callable[[Point], None] | None = None,
) -> ImportedResult:
    """The row of a server, after its figures are found to agree with each other.

    ``point`` holds what the file states of the point; batch and lengths are derived where it does not.
    ``invalid_reason`` is what the file says against itself. With ``mixed_lengths`` the prompts are known to differ,
    so that a whole number of tokens a request is still a mean.

    Raises:
        ShardbenchError: two figures contradict each other, or there is no rate.
    """
    check_totals(content, served)
    check_statistics(content, served.statistics)
    own, varies = dict(point or {}), dict[str, str]()
    own |= stated(batch_size=own.get("batch_size") or most_in_flight(served.limit, served.prompts, served.peak))
    load = _load(served)
    for key, tokens, lens, most in (
        ("input_len", served.input_tokens, served.input_lens, served.input_range),
        ("output_len", served.output_tokens, served.output_lens, served.output_range),
    ):
        if key in own:
            continue
        length = _length(served.completed, tokens, lens, most)
        if length is None:
            continue
        if isinstance(length.value, int) and not mixed_lengths:
            own[key] = length
        else:
            load[f"mean_{key}"] = replace(length, value=float(length.value))
            varies[key] = f"requests differ, with {length.value:g} tokens on average"
    rate = served.tokens_per_s or _total_rate(served)
    if rate is None and served.output_tokens_per_s is None:
        content.required("a rate of tokens", served.requests_per_s)
    figures = stated(
        tokens_per_s=rate,
        ttft_s=_median(served, "ttft_s"),
        tpot_s=_median(served, "tpot_s"),
    )
    return ImportedResult(
        phase="serve",
        timed_by=timed_by,
        system=system,
        point=own,
        figures=figures,
        load=load,
        model=model,
        hw=hw,
        needs=needs or {},
        varies=varies,
        check=check,
        invalid_reason="; ".join(each for each in (invalid_reason, _failures(served)) if each) or None,
    )


def statistics_of(content: Content, *, suffix: str, scale: float, under: str = "") -> dict[str, Known]:
    """The statistics ``mean_ttft…`` to ``p99_e2el…`` of a mapping: ``ttft_s.mean`` → seconds.

    ``suffix`` ends their keys (``_ms``); ``scale`` makes seconds of their unit. A time per token of 0 (there was no
    second token) is left out.
    """
    found = {}
    for key in content.names(under):
        name = STATISTICS.fullmatch(key.removesuffix(suffix)) if key.endswith(suffix) else None
        if name is None:
            continue
        known = content.number(f"{under}.{key}" if under else key, scale=scale, zero=True)
        if known is not None:
            found[f"{name[2]}_s.{name[1]}"] = known
    return found


def rate_asked(content: Content, key: str) -> Known | None:
    """The rate of requests asked for: a number > 0, or ``inf`` for all at once."""
    known = content.value(key)
    if known is None:
        return None
    if str(known.value).lower() in ("inf", "infinity"):
        return Known("inf", known.origin)
    if not is_number(known.value) or known.value <= 0:
        raise content.invalid(key, known.value, "a number > 0 or inf")
    return Known(float(known.value), known.origin)


def _load(served: Served) -> dict[str, Known]:
    names = (each.name for each in fields(served) if each.name not in NOT_IN_LOAD)
    load = {LOAD_NAMES.get(name, name): known for name in names if (known := getattr(served, name)) is not None}
    return {**load, **served.statistics, **served.more}


def most_in_flight(*limits: Known | None) -> Known | None:
    """The least of the limits that are stated of the requests in flight, None without one."""
    found = [each for each in limits if each is not None]
    return by_rule("most_in_flight", min(each.value for each in found), *found) if found else None


def _length(completed: Known | None, tokens: Known | None, lens: Known | None, most: Known | None) -> Known | None:
    """Tokens a request: an integer where all have as many, else their mean.

    Single requests tell, where the file lists them, or their least and most; else a whole number of tokens a request.
    """
    if lens is not None:
        mean = sum(lens.value) / len(lens.value)
        return Known(int(mean), lens.origin) if len(set(lens.value)) == 1 else by_rule("mean_tokens", mean, lens)
    if most is not None and most.value[0] == most.value[1]:
        return by_rule("least_is_most", int(most.value[0]), most, tokens, completed)
    if completed is None or tokens is None:
        return None
    mean = tokens.value / completed.value
    if most is None and float(mean).is_integer() and mean >= 1:
        return by_rule("tokens_a_request", int(mean), tokens, completed)
    return by_rule("mean_tokens", float(mean), tokens, completed, most)


def _total_rate(served: Served) -> Known | None:
    ins, outs = served.input_tokens_per_s, served.output_tokens_per_s
    if ins is not None and outs is not None:
        return by_rule("total_tokens_a_second", ins.value + outs.value, ins, outs)
    tokens, duration = (served.input_tokens, served.output_tokens), served.duration_s
    if duration is not None and served.tokens is not None:
        return by_rule("total_tokens_a_second", served.tokens.value / duration.value, served.tokens, duration)
    if duration is not None and tokens[0] is not None and tokens[1] is not None:
        rate = (tokens[0].value + tokens[1].value) / duration.value
        return by_rule("total_tokens_a_second", rate, *tokens, duration)
    return None


def _median(served: Served, name: str) -> Known | None:
    known = served.statistics.get(f"{name}.median") or served.statistics.get(f"{name}.p50")
    return known if known is not None and known.value > 0 else None


def _failures(served: Served) -> str | None:
    sent = served.prompts.value if served.prompts is not None else None
    failed: Any = served.failed.value if served.failed is not None else None
    if failed is None and sent is not None and served.completed is not None:
        failed = sent - served.completed.value
    if not failed:
        return None
    total = sent if sent is not None else failed + (served.completed.value if served.completed is not None else 0)
    return f"{failed} of {total} requests failed"
