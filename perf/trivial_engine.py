"""An engine whose programs do nothing, so that all time of a sweep of them is the harness's."""

from typing import Any, ClassVar

from engines.core.engine import Facts, Runner, Stage, Verification
from engines.core.point import Point
from engines.core.row import Source


class TrivialProgram:
    """One stage that returns at once."""

    compile_s = 0.0

    def __init__(self, program_id: str) -> None:
        self._program_id = program_id
        self.stages = (Stage("decode", _nothing),)

    def verify(self) -> Verification:
        """Nothing was computed, so nothing differs."""
        return Verification(ok=True, max_relative_error=0.0, tolerance=0.0, against="nothing")

    def facts(self) -> Facts:
        """No more than a row needs."""
        return Facts(program_id=self._program_id, peak_flops_per_s=1e30, hbm_bytes_per_s=1e30, peak_source="none")

    def close(self) -> None:
        """Nothing to free."""


class TrivialEngine(Runner):
    """``engine=jax engine._target_=perf.trivial_engine.TrivialEngine`` runs it with the settings of ``engine=jax``."""

    name: ClassVar[str] = "trivial"
    source: ClassVar[Source] = "measured"
    code = ("published",)

    def __init__(self, **_settings: Any) -> None:
        pass

    def program_id(self, point: Point) -> str:
        """The same of all points: they run the same."""
        del point
        return "nothing"

    def prepare(self, point: Point) -> TrivialProgram:
        """A program that does nothing."""
        return TrivialProgram(self.program_id(point))


def _nothing() -> None:
    pass
