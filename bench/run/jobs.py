"""Jobs → rows: which points are this command's, in which order jobs run, and what of others' work stands for it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from bench.run.child import evaluate_lockstep
from bench.run.evaluate import OnDevices, evaluated, evaluated_repeatedly
from bench.run.make_row import PointTask
from bench.run.resume import JobPlan
from bench.run.sharing import POLL_S, Sharing
from bench.run.worker import answer_all, valid_stored_row
from engines.core.engine import Estimator
from engines.core.row import Row


def run_jobs(plans: Sequence[JobPlan], sharing: Sharing) -> Iterator[tuple[JobPlan, list[Row], bool]]:
    """Yield rows as they end, with their job and whether they are new (else from the store).

    What other commands work on is put off to the end, and then waited for.
    """
    left = [[plan] for plan in plans if not plan.is_repeated]
    # Repeats in turn are in turn over all jobs, which is how engines are compared.
    left += _together([plan for plan in plans if plan.is_repeated])
    while left:
        put_off: list[list[JobPlan]] = []
        progress = False
        for together in left:
            others: dict[int, list[PointTask]] = {id(plan): [] for plan in together}
            for plan, rows, new in _run_together(together, sharing, others):
                progress = True
                yield plan, rows, new
            later = [plan for plan in together if others[id(plan)]]
            if later and later[0].process is not None:
                # A team comes together once, and leaves out only what a row answers by now.
                yield later[0], sharing.answered(later[0], others[id(later[0])])[0], False
            elif later:
                put_off.append([replace(plan, known=[], refused=[], to_do=others[id(plan)]) for plan in later])
        if put_off and not progress:
            time.sleep(POLL_S)
        left = put_off


def _together(plans: Sequence[JobPlan]) -> list[list[JobPlan]]:
    """The jobs of one number of repeats together, where they take turns."""
    found: dict[object, list[JobPlan]] = {}
    for plan in plans:
        in_turn = plan.options.order == "interleaved"
        found.setdefault(("in turn", plan.options.repeat) if in_turn else id(plan), []).append(plan)
    return list(found.values())


def _run_together(
    plans: Sequence[JobPlan], sharing: Sharing, others: Mapping[int, list[PointTask]]
) -> Iterator[tuple[JobPlan, list[Row], bool]]:
    """Yield the rows of a job as they end, or of several whose repeats take turns; with the job, and whether new.

    ``others`` gets the tasks of other commands, by the job's id().
    """
    taking_turns = []
    for plan in plans:
        if plan.known:
            yield plan, plan.known, False
        if plan.refused:
            yield from ((plan, rows, new) for rows, new in _refused(plan, sharing))
        if plan.answers_here:
            if plan.to_do:
                yield from ((plan, rows, new) for rows, new in _in_this_process(plan, sharing))
            continue
        answered, to_do = sharing.answered(plan, plan.to_do)
        yield from ((plan, [row], False) for row in answered)
        if plan.process is None and not (to_do and sharing.any_free(plan, to_do)):
            others[id(plan)].extend(to_do)
        elif plan.is_repeated:
            taking_turns.append((plan, to_do, partial(sharing.take, plan)))
        else:
            for task, row in _found(plan, to_do, sharing):
                yield from _accepted(plan, task, row, sharing, others)
    for plan, task, row in evaluated_repeatedly(taking_turns, plans[0].options):
        yield from _accepted(plan, task, row, sharing, others)


def _found(plan: JobPlan, to_do: Sequence[PointTask], sharing: Sharing) -> Iterator[tuple[PointTask, Row | None]]:
    """Every task with its row; None for one of another command."""
    if plan.process is None:
        environment = plan.engine.environment([task.point for task in to_do])
        yield from evaluated(plan, to_do, environment, partial(sharing.take, plan))
        return
    environment = plan.engine.environment(plan.job.points)  # of all points: followers do not know which are stored
    config, here = plan.job.engine_config, OnDevices(None)  # process 0's; the others go on when it does

    def may_start(task: PointTask) -> bool | None:
        may = sharing.ask_to_take(plan, task)
        if may and not here.try_begin(task):
            time.sleep(POLL_S)
            return None  # asked again, as every process of the team must show that it lives
        return may

    try:
        rows = evaluate_lockstep(config, to_do, plan.options.timing, environment, plan.process, may_start)
        for task, row in zip(to_do, rows, strict=True):
            here.end()
            yield task, row
    finally:
        here.close()


def _accepted(
    plan: JobPlan, task: PointTask, row: Row | None, sharing: Sharing, others: Mapping[int, list[PointTask]]
) -> Iterator[tuple[JobPlan, list[Row], bool]]:
    """The row, if it is this command's."""
    if row is None or not sharing.is_still_taken(row):
        others[id(plan)].append(task)
        return
    new = all(row is not each for each in task.stored)
    yield plan, [sharing.claimed(row) if new else row], new


def _refused(plan: JobPlan, sharing: Sharing) -> Iterator[tuple[list[Row], bool]]:
    """Yield the rows of points that nothing can run; those of others who found that meanwhile stand for them."""
    claim = sharing.wait_for_estimates(plan)
    try:
        answered, left = sharing.answered(plan, [task for task, _ in plan.refused])
        yield answered, False
        keys = {task.point_id for task in left}
        rows = [replace(row, claim=claim) for task, row in plan.refused if task.point_id in keys]
        if rows:
            yield rows, True
    finally:
        sharing.estimated()


def _in_this_process(plan: JobPlan, sharing: Sharing) -> Iterator[tuple[list[Row], bool]]:
    """Yield stored rows that are still valid one by one, then the rows of all other tasks in one list."""
    engine = plan.engine
    assert isinstance(engine, Estimator)
    claim = sharing.wait_for_estimates(plan)
    try:
        answered, tasks = sharing.answered(plan, plan.to_do)
        for row in answered:
            yield [row], False
        left = []
        for task in tasks:
            stored = valid_stored_row(engine, task)
            if stored is None:
                left.append(task)
            else:
                yield [task.stored[stored]], False
        if left:
            yield answer_all(engine, [replace(task, claim=claim) for task in left]), True
    finally:
        sharing.estimated()
