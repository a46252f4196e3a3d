"""A compiled engine that takes a millisecond a sequence, half of that with unrolled layers, and fails on Fridays."""

from engines.compiled.cost.version import timing_model
from engines.core.engine import Estimate, Estimator, Facts
from engines.core.errors import InvalidRequest

FAILS, DOES_NOT_FIT = 13, 1024


class RetimedEngine(Estimator):
    name = "compiled"
    source = "compiled"
    code = ("published",)

    def __init__(self, *, unroll_layers, **_settings):
        self.unroll_layers = unroll_layers
        self.options = {"unroll_layers": unroll_layers} if unroll_layers else {}

    def program_id(self, point):
        return f"program of {point.batch_size}"

    def estimate(self, points):
        return [self._answer(point) for point in points]

    def _answer(self, point):
        if point.batch_size == FAILS:
            raise InvalidRequest("batch_size", FAILS, "is a Friday", "use another")
        told = timing_model(["fusion"])
        if point.batch_size == DOES_NOT_FIT:
            facts = Facts(program_id=self.program_id(point), details=told)
            return Estimate(status="oom", error="does not fit", facts=facts)
        seconds = 1e-3 * point.batch_size * (0.5 if self.unroll_layers else 1)
        plan = "ws_2d unrolled" if self.unroll_layers else "ws_2d"
        facts = Facts(
            program_id=self.program_id(point),
            resolved={"ffn_layout": "ws_2d"},
            details={**told, "tried_s": {plan: seconds}, "compile_s": {"decode": 1.0}},
        )
        return Estimate(latency_s=seconds, step_time_s=seconds, facts=facts)
