"""Evaluates measured points in this process: no start-up of a child, and no protection from a crash or a hang."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from bench.measure.timing import TimingConfig
from bench.run.load_engine import Answering
from bench.run.make_row import PointTask
from bench.run.variables import variables_set
from bench.run.worker import answer, valid_stored_row
from engines.core.row import Row


def evaluate_inside(
    engine: Answering,
    tasks: Sequence[PointTask],
    timing: TimingConfig,
    environment: Mapping[str, str],
    may_start: Callable[[PointTask], bool],
) -> Iterator[Row | None]:
    """As :func:`bench.run.child.evaluate_shared`, but in this process, so limits of time and memory do not hold.

    ``environment`` is set meanwhile. A library that was imported before keeps what it read then; what a point needs
    and does not find, its engine refuses.
    """
    with variables_set(environment):
        for task in tasks:
            if not may_start(task):
                yield None
                continue
            stored = valid_stored_row(engine, task)
            yield answer(engine, task, timing) if stored is None else task.stored[stored]
