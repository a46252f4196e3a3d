"""``repeat=N``: each point is measured by N processes, one after the other or in turn with the other points.

In turn (A B A B A B), whatever changes while a sweep runs, such as a machine that gets warm or busy, is shared by all
that it compares. What processes of one program differ by is in the row: a process places its memory once, so its
samples are more like each other than like another's.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from bench.measure.processes import TimedProcess
from bench.run.load_engine import Answering
from bench.run.make_row import PointTask
from bench.run.measured_row import process_of
from engines.core.engine import JobProcess, Runner
from engines.core.errors import InvalidRequest
from engines.core.row import Row

Once = Callable[[PointTask], Row | None]


def check_repeat(repeat: int, engine: Answering, process: JobProcess | None, isolated: Any) -> None:
    """Check that an engine's points can be measured by several processes. What is not measured is asked once.

    Raises:
        InvalidRequest: they cannot.
    """
    if repeat == 1 or engine.source != "measured":
        return
    if not isinstance(engine, Runner):
        raise InvalidRequest("repeat", repeat, f"engine={engine.name} times its own runs", "use repeat=1")
    if process is not None:
        raise InvalidRequest("repeat", repeat, "is for measurements of one process, and this is a team", "use repeat=1")
    if not isolated:
        raise InvalidRequest("repeat", repeat, "needs processes of their own", "use engine.isolated=true")


def evaluate_repeated(
    points: Sequence[tuple[PointTask, Once]], repeat: int, order: str
) -> Iterator[tuple[int, Row | None]]:
    """Yield the index of every point with its row, which holds what all processes found, once the last has ended.

    A point comes with what answers its task in a process of its own. What is answered without a time, by a stored row,
    or not at all (None, as it is somebody else's) is over at once.
    """
    found: list[list[TimedProcess]] = [[] for _ in points]
    over: set[int] = set()
    for index in _visits(len(points), repeat, order):
        if index in over:
            continue
        (task, once), earlier = points[index], found[index]
        is_last = len(earlier) == repeat - 1
        pooled = tuple(earlier) if is_last else ()
        now = replace(task, earlier=pooled, goes_on=not is_last, stored=() if earlier else task.stored)
        row = once(now)
        if is_last or row is None or row.status != "ok" or any(row is each for each in task.stored):
            over.add(index)
            yield index, row
        else:
            earlier.append(process_of(row))


def _visits(points: int, repeat: int, order: str) -> list[int]:
    """The indices of points, each ``repeat`` times: 0 1 0 1 if ``interleaved``, else 0 0 1 1."""
    if order == "interleaved":
        return [*range(points)] * repeat
    return [index for index in range(points) for _ in range(repeat)]
