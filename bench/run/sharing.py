"""Points that several commands work on at once, in one store: each point is one command's, and all use its row.

A command takes a lease (:mod:`bench.rows.lease`) on a point just before it starts it, looks whether somebody has stored
its row meanwhile, and gives the lease back once its own is stored. Points that are somebody else's are put off to the
end: then their rows are there, or their holder has died and they are this command's.
"""

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from bench.rows.claim import claim_of
from bench.rows.lease import Leases
from bench.rows.repair import remove_superseded
from bench.rows.store import Store
from bench.run.grace import Grace
from bench.run.make_row import PointTask
from bench.run.resume import JobPlan, answer_of, by_point
from engines.core.errors import ShardbenchError
from engines.core.row import Row

POLL_S: Final = 0.5
"""Seconds between two looks at what others work on, when nothing else is left to do."""
ESTIMATES: Final = "estimates"
"""The lease of a command that answers many points at once in its own process, which takes no time worth sharing."""


class Sharing:
    """The points of this command, among those of all commands that write the same store."""

    def __init__(self, store: Store, grace: Grace | None = None) -> None:
        self._store = store
        self._grace = Grace(0) if grace is None else grace
        self._leases = Leases(store.results_dir)
        self._rows: dict[str, list[Row]] = {}
        self._taken: set[str] = set()
        self._works = True

    def take(self, plan: JobPlan, task: PointTask) -> bool:
        """Whether this command may start the task: nobody else works on it, nor has stored a row that may answer it."""
        self._grace.check()
        if self._grace.is_ending:  # another child of this command still has a point
            return False
        if not plan.options.resume:
            self._grace.begin(task.point_id)
            return True
        if self._may_be_answered(plan, task) or not self._take(task.point_id):
            return False
        self._look()
        if self._may_be_answered(plan, task):
            self._leases.release(task.point_id)
            return False
        if self._works:
            self._taken.add(task.point_id)
        self._grace.begin(task.point_id)
        return True

    def any_free(self, plan: JobPlan, tasks: Sequence[PointTask]) -> bool:
        """Whether a worker started now would find one of the tasks that it may start."""
        try:
            return not plan.options.resume or any(self._leases.is_free(task.point_id) for task in tasks)
        except OSError:
            return True  # then `take` says what is wrong

    def ask_to_take(self, plan: JobPlan, task: PointTask) -> bool | None:
        """:meth:`take` for a team of processes, which cannot come back later: None while somebody else has the task.

        Then it is the team's, unless the other's row answers it whatever the program. A command that was told to end
        passes all that is left, so that the other processes of the team know that it ends.
        """
        if self._grace.is_ending:
            return False
        if plan.options.resume:
            self._look()
            if answer_of(task, self._candidates(plan, task)) is not None:
                return False
            if not self._take(task.point_id):
                time.sleep(POLL_S)
                return None
        self._grace.begin(task.point_id)
        return True

    def is_still_taken(self, row: Row) -> bool:
        """Whether the row may be stored: this command still has its point, or did not have to take it.

        It does not where this process was asleep for so long that another has taken the point over.
        """
        try:
            found = row.point_id not in self._taken or self._leases.holds(row.point_id)
        except OSError:
            return True  # a row twice costs less than a row lost; the store says whether it can be written
        if not found:
            self._grace.end(row.point_id)
        return found

    def claimed(self, row: Row) -> Row:
        """The row with the claim under which it is stored: :mod:`bench.rows.claim`."""
        claim = self._leases.claim(row.point_id)
        return row if claim is None else replace(row, claim=str(claim))

    def settle(self, rows: Sequence[Row]) -> None:
        """After rows were stored: remove what was stored of the same claims by writers whose leases were over.

        Nothing depends on it, since such a row is ignored; but files that nobody counts are no file's worth.
        """
        contested = {
            row.point_id
            for row in rows
            if row.point_id in self._taken and (self._was_taken_over(row.point_id) or not self.is_still_taken(row))
        }
        if contested:
            with suppress(ShardbenchError):
                remove_superseded(self._store, contested)

    def _was_taken_over(self, key: str) -> bool:
        claim = self._leases.claim(key)
        return claim is not None and claim.generation > 0

    def release(self, rows: Sequence[Row], stored: Sequence[Row] = ()) -> None:
        """Give back the points of rows; those of ``stored`` have been stored under their claims by now."""
        of_claims = {row.point_id for row in stored}
        for row in rows:
            self._taken.discard(row.point_id)
            self._leases.release(row.point_id, stored=row.point_id in of_claims)
            self._grace.end(row.point_id)

    def abandon(self, rows: Sequence[Row]) -> None:
        """Rows could not be stored, but may be some day (``results add``): one of the same claim takes their place.

        Who measures their points next takes over the lease, and with it the claim.
        """
        for row in rows:
            self._taken.discard(row.point_id)
            self._leases.abandon(row.point_id)
            self._grace.end(row.point_id)

    def answered(self, plan: JobPlan, tasks: Sequence[PointTask]) -> tuple[list[Row], list[PointTask]]:
        """Rows of others that answer tasks by now, and the other tasks, with the rows that may."""
        rows, left = [], []
        self._look()
        for task in tasks:
            candidates = self._candidates(plan, task)
            row = answer_of(task, candidates) or self._failed_now(plan, task)
            if row is not None:
                rows.append(row)
            else:
                left.append(replace(task, stored=_merged(candidates, task.stored)))
        return rows, left

    def wait_for_estimates(self, plan: JobPlan) -> str | None:
        """Wait until this command alone answers points in its own process; :meth:`estimated` lets the next one.

        Returns:
            the claim of the rows, if there is one.
        """
        self._grace.check()
        while plan.options.resume and not self._take(ESTIMATES):
            time.sleep(POLL_S / 10)
        self._grace.begin(ESTIMATES)
        claim = self._leases.claim(ESTIMATES)
        return None if claim is None else str(claim)

    def estimated(self) -> None:
        """Let others answer points in their own process."""
        self._leases.release(ESTIMATES)
        self._grace.end(ESTIMATES)

    def close(self) -> None:
        """Give everything back."""
        self._leases.close()

    def _take(self, key: str) -> bool:
        try:
            if not self._works or not self._leases.take(key):
                return not self._works
            if key == ESTIMATES or not self._has_row_of_claim(key):
                return True
            # What another may still store under this claim counts no more: the next row is one of a claim of its own.
            self._leases.release(key, stored=True)
            return self._leases.take(key)
        except OSError as error:
            # A point without a lease may be measured twice, which costs time; without its row it would be lost.
            self._works = False
            print(
                f"shardbench: {self._leases.folder}: cannot be written ({error.strerror}); points are not shared with "
                "other commands from here on",
                file=sys.stderr,
            )
            return True

    def _has_row_of_claim(self, key: str) -> bool:
        """Whether a row is stored under the claim of a lease that was taken over."""
        claim = self._leases.claim(key)
        if claim is None or not self._leases.may_be_claimed(key):
            return False
        known = (claim_of(row) for _, row in self._store.rows_of({key}))
        return any(each is not None and each.id == claim.id for each in known)

    def _look(self) -> None:
        """Read what others have stored since the last look."""
        for row in self._store.rows_of_others():
            self._rows.setdefault(row.point_id, []).append(row)

    def _candidates(self, plan: JobPlan, task: PointTask) -> list[Row]:
        """What others have stored of a task since this command began, the best first, as far as it may stand for it."""
        rows = self._rows.get(task.point_id)
        if rows is None or not plan.options.resume:
            return []
        rows.sort(key=lambda row: row.created_at)
        found = plan.candidates(by_point(rows)[task.point_id])
        return [row for row in found if row.program_id is not None or answer_of(task, [row]) is not None]

    def _may_be_answered(self, plan: JobPlan, task: PointTask) -> bool:
        """Whether others have stored a row that may stand for the task, and that nobody has compared with it yet."""
        looked_at = {id(row) for row in task.stored}
        candidates = self._candidates(plan, task)
        return any(id(row) not in looked_at for row in candidates) or self._failed_now(plan, task) is not None

    def _failed_now(self, plan: JobPlan, task: PointTask) -> Row | None:
        """The row of a point that another command asked of the same code since this one began, and that has no time.

        ``retry`` is about rows of before: a point that fails is not to fail once in each of the workers of a sweep.
        """
        return next(
            (
                row
                for row in self._rows.get(task.point_id, ())
                if row.status in ("failed", "timeout") and row.code_id == task.code_id and plan.holds(row)
            ),
            None,
        )


def _merged(candidates: Sequence[Row], stored: Sequence[Row]) -> list[Row]:
    """Rows that a worker compares with the program that would run now, each once."""
    return list({id(row): row for row in [*candidates, *stored]}.values())
