"""How long a command still takes, as far as rows say."""

from bench.run.durations import Durations
from bench.run.resume import JobPlan
from engines.core.row import Row


class TimeLeft:
    """How long the points that are left will take, as far as rows say."""

    def __init__(self, durations: Durations) -> None:
        self._durations = durations
        self._left: dict[tuple[str, str], float] = {}
        self._at_once: dict[str, float] = {}

    def expect(self, plan: JobPlan) -> None:
        """The points that a job has to do are left."""
        engine = plan.job.engine
        self._left |= {(engine, point_id): each.run_s for point_id, each in plan.expected.items()}
        times = plan.options.repeat if plan.is_repeated else 1
        self._at_once[engine] = plan.at_once / times

    def ended(self, row: Row, *, new: bool) -> None:
        """A point has been answered."""
        run_s = self._left.pop((row.engine, row.point_id), None)
        if new and run_s is not None:
            self._durations.learn(row, run_s)

    def seconds(self) -> float | None:
        """Seconds to go; None where an engine has no row yet that says how long its points take."""
        total = 0.0
        for (engine, point_id), run_s in self._left.items():
            took_s = self._durations.expected(engine, point_id, run_s)
            if took_s is None:
                return None
            total += took_s / self._at_once[engine]
        return total

    def text(self) -> str:
        """``about 3 min to go``; empty if nothing is left."""
        if not self._left:
            return ""
        seconds = self.seconds()
        if seconds is None:
            return "time to go not known yet"
        for unit, scale in (("h", 3600.0), ("min", 60.0)):
            if seconds >= 2 * scale:
                return f"about {seconds / scale:.0f} {unit} to go"
        return f"about {max(1, round(seconds))} s to go"
