"""A server under load: finds the rate where it is looked for, and makes the row of what the client's file says."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from bench.importers.entry import ImportedResult
from bench.importers.files import read_file
from bench.importers.formats import FORMATS
from bench.importers.to_rows import grouped
from bench.measure.knee import find_knee
from bench.run.make_row import PointTask, under_load, with_energy
from engines.core.engine import Estimate
from engines.core.errors import ShardbenchError
from engines.core.load_test import LoadTester, Server
from engines.core.point import Point
from engines.core.row import Row
from engines.core.serve_checks import is_knee
from engines.host.program import ProgramFailed

UNSENT: Final = 0.05
"""Share of the rate asked for that a client may be below it."""
DEVIATIONS: Final = 4.0
"""Standard deviations that the rate of a number of random arrivals may be below the one asked for."""
FURTHER_TOKENS: Final = 4
LENGTHS_AGREE: Final = 0.02
"""Tokens, and share of a length, that a client's count may differ by: tokenizers add tokens that begin a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRun:
    """One run: what its file says, the ``requests`` sent, and those that ``failed`` where the client says beside it.

    ``watts`` and ``energy_source`` are those of the client's result.
    """

    result: ImportedResult
    requests: int
    requests_per_s: float | None
    sent_per_s: float | None
    failed: int | None
    watts: Callable[[float], float | None] | None = None
    energy_source: str | None = None

    def value(self, name: str) -> Any:
        """A figure of ``load``; None where the file does not have it."""
        known = self.result.load.get(name)
        return None if known is None else known.value

    @property
    def unanswered(self) -> int:
        """Requests that failed."""
        if self.failed is not None:
            return self.failed
        completed = self.value("completed")
        return int(self.value("failed") or 0) if completed is None else max(0, self.requests - int(completed))

    @property
    def seconds(self) -> float | None:
        """The time in which its requests were answered, by the rate of answers; None where that is not known."""
        rate = self.value("requests_per_s")
        return (self.requests - self.unanswered) / float(rate) if rate else None


def answer_under_load(engine: LoadTester, task: PointTask) -> Row:
    """The row of a point of the phase ``serve``.

    Raises:
        ShardbenchError: no server answers, the client fails, or no rate is under the limits.
    """
    server = engine.open(task.point)
    try:
        return _row_of(server, task)
    finally:
        server.close()


def _row_of(server: Server, task: PointTask) -> Row:
    point = task.point
    if not is_knee(point):
        run = _run(server, point, point.request_rate_per_s)
        return _row(task, server, run, {})
    found = find_knee(
        server.rules, lambda rate: _run(server, point, rate), lambda run: is_under(run, point, server.rules.share)
    )
    tried = [{"request_rate_per_s": rate, "under_the_limits": under} for rate, under in found.tried]
    if found.best is None:
        lowest = found.tried[-1][0]
        limits = " and ".join(f"{key}={value:g}" for key, value in limits_of(point).items())
        raise ProgramFailed(
            f"{limits}: fewer than {server.rules.share:.4g} of the requests were within, down to "
            f"{lowest:.3g} requests/s; raise the limits, or ask for request_rate_per_s={lowest:.3g} to see its times"
        )
    rate, run = found.best
    row = _row(task, server, run, {"rates_tried": tried, "share": server.rules.share})
    if found.above is None:
        row = _invalid(
            row, f"all rates up to {rate:.4g} requests/s were under the limits; raise engine.first_rate_per_s"
        )
    return replace(row, request_rate_per_s=rate, chosen=[*row.chosen, "request_rate_per_s"])


def limits_of(point: Point) -> dict[str, float]:
    """The limits that a point states: key → seconds."""
    keys = ("ttft_limit_s", "tpot_limit_s")
    return {key: limit for key in keys if (limit := getattr(point, key)) is not None}


def is_under(run: LoadRun, point: Point, share: float) -> bool:
    """Whether a ``share`` of all requests sent was answered within the limits of a point.

    The client's own count of those that were (its goodput) says so, or else the percentile of each time: a share of
    requests is within a limit where the percentile of that share is.

    Raises:
        ShardbenchError: the client states neither.
    """
    goodput, rate = run.value("goodput_requests_per_s"), run.value("requests_per_s")
    answered = 1 - run.unanswered / run.requests
    if goodput is not None and rate:
        return bool(answered * goodput / rate >= share)
    if answered < share:
        return False
    names = {"ttft_limit_s": "ttft_s", "tpot_limit_s": "tpot_s"}
    for key, limit in limits_of(point).items():
        word = f"p{100 * share:g}"
        value = run.value(f"{names[key]}.{word}")
        if value is None:
            raise ProgramFailed(
                f"engine.share={share:g}: the client states no {word} of {names[key]}; use engine.share=0.99"
            )
        if value > limit:
            return False
    return True


def _run(server: Server, point: Point, requests_per_s: float | None) -> LoadRun:
    requests = point.num_requests or server.rules.requests(requests_per_s)
    left = server.load(requests_per_s, requests)
    try:
        [content] = read_file(left.file)
        [result] = FORMATS[left.format].entries(content)
    except ShardbenchError as error:
        raise ProgramFailed(f"the client's result makes no row: {error}") from None
    return LoadRun(
        result=result,
        requests=requests,
        requests_per_s=requests_per_s,
        sent_per_s=left.sent_per_s,
        failed=left.failed,
        watts=left.watts,
        energy_source=left.energy_source,
    )


def _row(task: PointTask, server: Server, run: LoadRun, more: Mapping[str, Any]) -> Row:
    point, facts = task.point, server.facts()
    figures = {name: known.value for name, known in run.result.figures.items()}
    load = {name: known.value for name, known in run.result.load.items()}
    load |= {"requests": run.requests, "failed": run.unanswered}
    if run.sent_per_s is not None:
        load["sent_requests_per_s"] = run.sent_per_s
    outs, requests = load.get("output_tokens_per_s"), load.get("requests_per_s")
    if "tokens_per_s" not in figures and outs is not None and requests is not None:
        figures["tokens_per_s"] = outs + requests * point.input_len
    details = {**facts.details, **more}
    row = under_load(
        task,
        Estimate(system=server.system or run.result.system, facts=replace(facts, details=details)),
        figures,
        grouped(load),
    )
    row = replace(row, num_requests=run.requests)
    if point.num_requests is None:
        row = replace(row, chosen=[*row.chosen, "num_requests"])
    seconds = run.seconds
    if run.watts is not None and seconds is not None:
        row = with_energy(row, seconds, run.watts(seconds), run.energy_source)
    for reason in _doubts(point, run):
        row = _invalid(row, reason)
    return row


def _doubts(point: Point, run: LoadRun) -> list[str]:
    """Why the figures are not those of what was asked."""
    found = []
    stated = run.result.invalid_reason
    if run.unanswered:
        found.append(f"{run.unanswered} of {run.requests} requests failed")
    if stated and not stated.endswith("requests failed"):
        found.append(stated)
    if not point.batch_size and (unsent := _unsent(run)) is not None:
        found.append(unsent)
    for key in ("input_len", "output_len"):
        wanted, mean = getattr(point, key), _mean(run, key)
        if mean is not None and abs(mean - wanted) > FURTHER_TOKENS + LENGTHS_AGREE * wanted:
            found.append(f"requests had {mean:.4g} tokens on average and {key}={wanted}")
    return found


def _unsent(run: LoadRun) -> str | None:
    """A sentence on a client that could not send what was asked; None where it could, or where nobody knows.

    The intervals of n requests by a Poisson process have a mean whose deviation is 1/√n of it; a client that states the
    rate of the intervals that it drew is held to that.
    """
    asked, sent, drawn = run.requests_per_s, run.sent_per_s, run.value("request_rate_per_s")
    if asked is None or sent is None:
        return None
    room = DEVIATIONS / math.sqrt(run.requests)
    if isinstance(drawn, float) and not math.isclose(drawn, asked, rel_tol=1e-6):
        asked, room = drawn, 0.0
    if sent >= asked * (1 - UNSENT - room):
        return None
    return f"the client sent {sent:.4g} of {asked:.4g} requests/s; use a faster client or machine, or a lower rate"


def _mean(run: LoadRun, key: str) -> float | None:
    known = run.result.point.get(key)
    value = run.value(f"mean_{key}") if known is None else known.value
    return None if value is None else float(value)


def _invalid(row: Row, reason: str) -> Row:
    reasons = [each for each in (row.invalid_reason, reason) if each]
    return replace(row, valid=False, invalid_reason="; ".join(reasons))
