"""How many tokens a draft should propose a turn, on the plan that was chosen for decoding without one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from bench.planner.search import Candidate
from engines.analytic.engine import AnalyticEngine
from engines.core.errors import InvalidRequest, Unsupported
from engines.core.point import Point
from engines.core.speculative_keys import SHARE
from engines.core.text import significant

LENGTHS: Final = tuple(range(1, 17))
"""``draft_len`` that are tried where it is left open. A turn yields 1/(1 − acceptance_rate) tokens at most, on average:
longer ones only add steps of the draft."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafted:
    """The fastest of the proposals' lengths that were tried: ``point`` has its ``draft_len``."""

    point: Point
    latency_s: float
    step_time_s: float | None
    tokens_per_turn: float
    plain_s: float
    tried: Sequence[int]

    @property
    def speedup(self) -> float:
        """Times as fast as the same plan without a draft; below 1 where drafting does not pay."""
        return self.plain_s / self.latency_s

    @property
    def sentence(self) -> str:
        """For the reader."""
        point = self.point
        rate = f"acceptance_rate={point.acceptance_rate}"
        what = f"speculative={point.speculative}" + (f" with {point.draft_model.name}" if point.draft_model else "")
        lengths = f"{min(self.tried)} to {max(self.tried)}" if len(self.tried) > 1 else "those asked for"
        return (
            f"{what}, {rate}: draft_len={point.draft_len} is the fastest of {lengths}, "
            f"{significant(self.latency_s, 4)} s, {significant(self.speedup)} times as fast as without"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "speculative": self.point.speculative,
            "draft_model": None if self.point.draft_model is None else self.point.draft_model.name,
            "draft_layers": self.point.draft_layers,
            "acceptance_rate": self.point.acceptance_rate,
            "draft_len": self.point.draft_len,
            "latency_s": self.latency_s,
            "step_time_s": self.step_time_s,
            "tokens_per_turn": self.tokens_per_turn,
            "speedup": self.speedup,
        }


def drafted(chosen: Candidate, keys: Mapping[str, Any], lengths: Sequence[int] = LENGTHS) -> Drafted:
    """The chosen plan with the draft of ``keys`` (those of a point), which proposes as many tokens as is fastest.

    Raises:
        Unsupported: no length can be predicted, as the rate is not given or both models do not fit.
    """
    points = [replace(chosen.point, micro_batches=None, **keys, draft_len=length) for length in lengths]
    answers = AnalyticEngine().estimate(points)
    times = [answer.latency_s if answer.status == "ok" else None for answer in answers]
    known = [(seconds, number) for number, seconds in enumerate(times) if seconds is not None]
    if not known:
        raise Unsupported(str(answers[0].error))
    seconds, best = min(known)
    return Drafted(
        point=points[best],
        latency_s=seconds,
        step_time_s=answers[best].step_time_s,
        tokens_per_turn=answers[best].facts.tokens_per_turn or 1.0,
        plain_s=chosen.latency_s,
        tried=lengths,
    )


def drafted_as_asked(chosen: Candidate, settings: Mapping[str, Any]) -> Drafted | None:
    """The draft that a command's keys ask for on the chosen plan; None where they ask for none.

    Raises:
        InvalidRequest: keys of a draft without ``speculative``, or a name is unknown.
        Unsupported: see :func:`drafted`.
    """
    from bench.sweep.catalog import load_model

    given = {key: settings[key] for key in ("draft_model", "draft_layers", "acceptance_rate")}
    lengths = LENGTHS if settings["draft_len"] == "auto" else tuple(settings["draft_len"])
    if settings["speculative"] == "none":
        named = {key: value for key, value in given.items() if value is not None}
        named |= {} if lengths is LENGTHS else {"draft_len": settings["draft_len"]}
        if named:
            key, value = next(iter(named.items()))
            raise InvalidRequest(key, value, "is about a draft, and speculative=none", "give speculative=draft")
        return None
    if given["draft_model"] is not None:
        given["draft_model"] = load_model(given["draft_model"])
    if settings["speculative"] == "self" and given["draft_layers"] is None:
        given["draft_layers"] = max(1, chosen.point.model.num_layers // SHARE)
    return drafted(chosen, {"speculative": settings["speculative"], **given}, lengths)
