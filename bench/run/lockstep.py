"""Points in a multi-process job: every process's child runs the same programs, in the order of process 0."""

import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from bench.run.keys import code_id, point_id
from bench.run.make_row import PointTask
from engines.core.engine import Program, Runner, Team
from engines.core.errors import ShardbenchError
from engines.core.row import Row


class Lockstep:
    """A team whose processes are all at the same place of the same program."""

    def __init__(self, team: Team) -> None:
        """``in_step`` is false once a process may have diverged from the others; a new team is then needed."""
        self.team = team
        self.process = team.process
        self.in_step = True
        self.hosts: list[str] = team.exchange(socket.gethostname())

    def broadcast(self, value: Any) -> Any:
        """Process 0's value, in every process."""
        return self.team.exchange(value)[0]

    def tasks(self, local: Sequence[PointTask]) -> Iterator[PointTask]:
        """Process 0's tasks, in every process."""
        remaining = iter(local)
        while (task := self.broadcast(next(remaining, None))) is not None:
            yield task

    def prepare(self, engine: Runner, task: PointTask) -> Program:
        """The program, prepared in all processes. An error in one process is raised in all of them."""
        self.in_step = False
        program, error = None, None
        try:
            self._check_same(engine, task)
            program = engine.prepare(task.point)
        except ShardbenchError as known:
            error = known
        except Exception as unknown:
            error = ShardbenchError(f"{type(unknown).__name__}: {' '.join(str(unknown).split())[:500]}")
        errors = self.team.exchange(error)
        # From here to the end of the point, a process that raises diverges from the others.
        for each in errors:
            if each is not None:
                if program is not None:
                    program.close()
                self.in_step = True
                raise each
        assert program is not None
        return program

    def with_hosts(self, row: Row) -> Row:
        """The row with the hosts that measured it, in order of process index; the team is in step again."""
        self.in_step = True
        return replace(row, details={**row.details, "hosts": self.hosts})

    def _check_same(self, engine: Runner, task: PointTask) -> None:
        if (point_id(engine, task.point), code_id(engine)) != (task.point_id, task.code_id):
            raise ShardbenchError(
                f"engine.process_id={self.process.index}: its code, libraries or settings differ from process 0; "
                "start the same command with the same installation in every process"
            )
