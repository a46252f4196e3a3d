"""Which program a phase of a point is, as what its compiler is asked."""

from typing import TYPE_CHECKING

from engines.compiled.compile.compiler import CompileRequest
from engines.compiled.exits import exits_for
from engines.compiled.speculative import draft_for, turn_of
from engines.compiled.target.base import Target
from engines.compiled.target.installed import compiler_for
from engines.core.point import Point

if TYPE_CHECKING:
    from engines.transformer.partition.plan import Plan


def request_of(point: Point, plan: "Plan", target: Target, phase: str) -> CompileRequest:
    """The program ``phase`` of a point, run by ``plan``."""
    steps, libraries = point.decode_steps if phase == "decode" else 0, compiler_for(point.chip).libraries
    if point.lengths != "equal":
        return CompileRequest(plan, target, libraries, phase, point.input_len, steps, point=point)
    if phase == "decode":
        return CompileRequest(plan, target, libraries, phase, point.input_len, steps, exits=exits_for(point))
    if phase == "prefill":
        return CompileRequest(plan, target, libraries, phase, point.input_len, steps)
    draft = draft_for(target.resolve(point), plan)
    if phase == "draft_prefill":
        assert draft is not None
        return CompileRequest(draft, target, libraries, "prefill", point.input_len, steps)
    return CompileRequest(plan, target, libraries, phase, point.input_len, steps, turn_of(point), draft)
