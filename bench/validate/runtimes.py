"""Which runtime a measured time is of, and which one an engine is asked for."""

from collections.abc import Sequence
from dataclasses import replace

from bench.sweep.runtimes import load_runtime
from bench.validate.case import Case
from engines.core.engine import Engine
from engines.core.runtime import AUTO
from engines.published.systems import runtime_of


def runtime_named(stated: str | None, system: str) -> str:
    """The runtime that a line states, else the one that its ``system`` names, else ``auto``: nobody says.

    Raises:
        InvalidRequest: the stated one is not known.
    """
    if stated and stated != AUTO:
        load_runtime(stated)
        return stated
    return runtime_of(system) or AUTO


def asked(cases: Sequence[Case], engine: Engine, runtime: str | None = None) -> list[Case]:
    """The cases as an engine is asked for them: each for ``runtime``, or for its own where that is None.

    An engine that is one runtime answers for that, whatever was measured.

    Raises:
        InvalidRequest: ``runtime`` is not known.
        Unsupported: it is not one that the engine answers for.
    """
    named = None if runtime is None else load_runtime(runtime)
    if cases and named is not None:
        engine.check_runtime(replace(cases[0].point, runtime=named))
    if runtime is not None:
        return [replace(case, point=replace(case.point, runtime=named)) for case in cases]
    if not engine.answers_any_runtime:
        return list(cases)
    return [replace(case, point=replace(case.point, runtime=load_runtime(case.runtime))) for case in cases]
