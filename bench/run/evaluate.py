"""How the points of one job are answered: by one child or several, in this process, or repeatedly."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from bench.run.child import evaluate_shared
from bench.run.devices import Devices, core_sets, devices_of
from bench.run.inside import evaluate_inside
from bench.run.limits import Limits
from bench.run.make_row import PointTask
from bench.run.parallel import Beside, Workers
from bench.run.repeats import Once, evaluate_repeated
from bench.run.resume import JobPlan
from bench.sweep.options import Options
from engines.core.row import Row

Start = Callable[[PointTask], bool]


class OnDevices(Beside):
    """A measurement has its devices for itself, from just before a point starts until its row is there."""

    def __init__(self, cores: Sequence[int] | None) -> None:
        self.cores = cores
        self._devices = Devices()

    def begin(self, task: PointTask) -> None:
        """Wait for the devices."""
        self._devices.take(devices_of(task.point.chip, self.cores))

    def try_begin(self, task: PointTask) -> bool:
        """Whether the devices are this measurement's from now on; none of them is if one is not."""
        if all(self._devices.try_take(name) for name in sorted(devices_of(task.point.chip, self.cores))):
            return True
        self._devices.release()
        return False

    def end(self) -> None:
        """Give them back."""
        self._devices.release()

    def close(self) -> None:
        """Give them back, for good."""
        self._devices.close()


def evaluated(
    plan: JobPlan, tasks: Sequence[PointTask], environment: Mapping[str, str], may_start: Start
) -> Iterator[tuple[PointTask, Row | None]]:
    """Yield every task with its row, as it ends; None for one that ``may_start`` says is somebody else's.

    Never are two measured points on one device at a time, of this command or another.
    """
    config, timing = plan.job.engine_config, plan.options.timing
    beside = beside_of(plan)
    if len(beside) > 1:
        workers = Workers(config, timing, environment, plan.engine.shares_programs)
        yield from workers.evaluate(tasks, may_start, beside)
        return
    (alone,) = beside
    begin = _begin(may_start, alone)
    if config.get("isolated"):
        rows = evaluate_shared(config, tasks, timing, environment, begin, cores=alone.cores)
    else:
        rows = evaluate_inside(plan.engine, tasks, timing, environment, begin)
    try:
        for task, row in zip(tasks, rows, strict=True):
            alone.end()
            yield task, row
    finally:
        alone.close()


def evaluated_repeatedly(
    jobs: Sequence[tuple[JobPlan, Sequence[PointTask], Start]], options: Options
) -> Iterator[tuple[JobPlan, PointTask, Row | None]]:
    """:func:`evaluated` of several jobs whose points are measured by several processes, in turn over all of them."""
    besides = []
    points: list[tuple[JobPlan, PointTask, Once]] = []
    for plan, tasks, may_start in jobs:
        (alone,) = beside_of(plan)
        besides.append(alone)
        environment = plan.engine.environment([task.point for task in tasks])
        once = partial(_in_own_process, plan, environment, may_start, alone)
        points += [(plan, task, once) for task in tasks]
    try:
        for index, row in evaluate_repeated([each[1:] for each in points], options.repeat, options.order):
            yield *points[index][:2], row
    finally:
        for each in besides:
            each.close()


def _in_own_process(
    plan: JobPlan, environment: Mapping[str, str], may_start: Start, beside: Beside, task: PointTask
) -> Row | None:
    config, begin = plan.job.engine_config, _begin(may_start, beside)
    (row,) = evaluate_shared(config, [task], plan.options.timing, environment, begin, cores=beside.cores)
    beside.end()
    return row


def _begin(may_start: Start, beside: Beside) -> Start:
    def begin(task: PointTask) -> bool:
        if not may_start(task):
            return False
        beside.begin(task)
        return True

    return begin


def beside_of(plan: JobPlan) -> list[Beside]:
    """What each child of a job has beside its points: as many as may work at once."""
    if plan.engine.source != "measured":
        return [Beside() for _ in range(plan.at_once)]
    cores = Limits.of(plan.job.engine_config).cores if plan.job.engine_config.get("isolated") else None
    on_cpu = all(point.chip.kind == "cpu" for point in plan.job.points)
    if plan.at_once < plan.options.max_parallel:
        how = f"{plan.at_once} at a time" if cores else "one at a time"
        remedy = "; +engine.cores=1 gives each a core of its own" if on_cpu and not cores else ""
        print(
            f"shardbench: max_parallel={plan.options.max_parallel}: points of engine={plan.engine.name} are measured "
            f"{how}{remedy}",
            file=sys.stderr,
        )
    if cores is not None and on_cpu:
        return [OnDevices(chosen) for chosen in core_sets(cores, plan.at_once)]
    return [OnDevices(None)]
