"""Whether the figures of a server agree with each other."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

from bench.importers.content import Content
from bench.importers.known import Known
from bench.importers.served import Served
from engines.core.errors import ShardbenchError

ROUNDING: Final = 0.005
"""Relative difference up to which two figures of a file are the same, rounded."""

DEVIATIONS: Final = 6.0
"""Standard deviations that a rate of random requests may be from the one asked for."""


def check_totals(content: Content, served: Served) -> None:
    """Counts × durations against rates, requests sent against completed and failed, and requests in flight.

    Raises:
        ShardbenchError: two of them contradict each other.
    """
    for count, rate in (
        (served.completed, served.requests_per_s),
        (served.input_tokens, served.input_tokens_per_s),
        (served.output_tokens, served.output_tokens_per_s),
    ):
        agree(content, rate, _over(count, served.duration_s), count, served.duration_s)
    both = _sum(served.input_tokens, served.output_tokens) or served.tokens
    agree(content, served.tokens_per_s, _over(both, served.duration_s), both, served.duration_s)
    rates = _sum(served.input_tokens_per_s, served.output_tokens_per_s)
    agree(content, served.tokens_per_s, None if rates is None else rates.value, rates)
    for rate in (served.input_tokens_per_s, served.output_tokens_per_s):
        _at_most(content, rate, served.tokens_per_s)
    _at_most(content, served.goodput_requests_per_s, served.requests_per_s)
    _at_most(content, served.completed, served.prompts)
    ended = _sum(served.completed, served.failed)
    _at_most(content, ended, served.prompts)
    for tokens, lens in ((served.input_tokens, served.input_lens), (served.output_tokens, served.output_lens)):
        if tokens is not None and lens is not None:
            agree(content, tokens, sum(lens.value), lens)
    for tokens, span in ((served.input_tokens, served.input_range), (served.output_tokens, served.output_range)):
        _within(content, tokens, served.completed, span)
    _check_in_flight(content, served)
    _check_rate_asked(content, served)


def check_statistics(content: Content, statistics: Mapping[str, Known]) -> None:
    """Laws that the statistics of any set of numbers obey.

    Percentiles are in order; the mean is between the least and the most; a percentile p is within σ·√(p/(1 − p)) above
    the mean and σ·√((1 − p)/p) below it (Cantelli), for the median one standard deviation.

    Raises:
        ShardbenchError: one is broken.
    """
    for name in dict.fromkeys(key.partition(".")[0] for key in statistics):
        mine = {key.partition(".")[2]: known for key, known in statistics.items() if key.startswith(f"{name}.")}
        shares = [(share, known) for each, known in mine.items() if (share := _share(each)) is not None]
        ordered = sorted(shares, key=lambda each: each[0])
        for (_, lower), (_, upper) in pairwise(ordered):
            _at_most(content, lower, upper)
        mean, std = mine.get("mean"), mine.get("std")
        _at_most(content, mine.get("min"), mean)
        _at_most(content, mean, mine.get("max"))
        if mean is None or std is None:
            continue
        for share, known in ordered:
            if 0 < share < 1:
                above, below = math.sqrt(share / (1 - share)), math.sqrt((1 - share) / share)
                room = ROUNDING * (mean.value + std.value)
                if not mean.value - below * std.value - room <= known.value <= mean.value + above * std.value + room:
                    raise _contradiction(
                        content, known, f"cannot be with the mean and standard deviation of {mean.keys}, {std.keys}"
                    )


def agree(
    content: Content, known: Known | None, computed: float | None, *sources: Known | None, room: float = ROUNDING
) -> None:
    """Raise ShardbenchError where a figure of the file is not what others make of it, within a relative ``room``."""
    if known is None or computed is None:
        return
    if not math.isclose(known.value, computed, rel_tol=room):
        names = " and ".join(each.keys for each in sources if each is not None)
        raise _contradiction(content, known, f"differs from {computed:.6g}, which {names} give")


def _check_in_flight(content: Content, served: Served) -> None:
    """Little's law: requests/s × their mean time are in flight on average, which no limit is below."""
    e2el, rate = served.statistics.get("e2el_s.mean"), served.requests_per_s
    limits = [each for each in (served.limit, served.prompts) if each is not None]
    if e2el is None or rate is None or not limits:
        return
    least = min(limits, key=lambda each: float(each.value))
    check_in_flight(content, least, e2el.value * rate.value, rate, e2el)


def check_in_flight(content: Content, limit: Known, flight: float, *sources: Known) -> None:
    """Raise ShardbenchError where more requests are in flight on average, as ``sources`` make it, than ``limit``."""
    if flight > limit.value * (1 + ROUNDING):
        names = ", ".join(each.keys for each in sources)
        raise _contradiction(content, limit, f"is fewer than the {flight:.3g} requests in flight that {names} make")


def _check_rate_asked(content: Content, served: Served) -> None:
    """Requests end no faster than they are sent.

    The time between requests is random with mean 1/rate and, of a gamma distribution, the standard deviation
    1/(rate·√burstiness) (1 if it is exponential): the time to send n of them is that of n − 1 intervals, (n − 1)/rate,
    within a few √n.
    """
    asked, rate, count = served.request_rate_per_s, served.requests_per_s, served.completed
    if asked is None or rate is None or count is None or asked.value == "inf" or count.value < 2:
        return
    shape = 1.0 if served.burstiness is None else served.burstiness.value
    least = 1 - DEVIATIONS / math.sqrt(count.value * shape)
    if least > 0 and rate.value > asked.value * count.value / (count.value - 1) / least:
        raise _contradiction(content, rate, f"is above {asked.keys}={asked.value:.6g}, at which requests were sent")


def _within(content: Content, tokens: Known | None, completed: Known | None, span: Known | None) -> None:
    """The mean length is between the least and the most."""
    if tokens is None or completed is None or span is None:
        return
    mean = tokens.value / completed.value
    if not span.value[0] * (1 - ROUNDING) <= mean <= span.value[1] * (1 + ROUNDING):
        raise _contradiction(
            content,
            tokens,
            f"makes a mean of {mean:.6g}, outside of {span.keys}, {span.value[0]:g} to {span.value[1]:g}",
        )


def _over(count: Known | None, duration: Known | None) -> float | None:
    return None if count is None or duration is None else count.value / duration.value


def _sum(one: Known | None, other: Known | None) -> Known | None:
    if one is None or other is None:
        return None
    return Known(one.value + other.value, f"file: {one.keys}, {other.keys}")


def _at_most(content: Content, lower: Known | None, upper: Known | None) -> None:
    if lower is not None and upper is not None and lower.value > upper.value * (1 + ROUNDING):
        raise _contradiction(content, lower, f"is above {upper.keys}, which is {upper.value:.6g}")


def _share(name: str) -> float | None:
    """The share of values below: 0.99 of ``p99``, 0 of ``min``."""
    fixed = {"min": 0.0, "median": 0.5, "max": 1.0}
    if name in fixed:
        return fixed[name]
    return float(name[1:]) / 100 if name[0] == "p" else None


def _contradiction(content: Content, known: Known, problem: str) -> ShardbenchError:
    return ShardbenchError(f"{content.where}: {known.keys}={known.value:.6g} {problem}; import an unmodified file")
