"""Points in several processes of one job, as each process's child sees it: all do what process 0 says."""

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
    """A team in step: all its processes are at the same point of the same program."""

    def __init__(self, team: Team) -> None:
        """``in_step`` is false once a process may have left the others; the team is then of no more use."""
        self.team = team
        self.process = team.process
        self.in_step = True
        self.hosts: list[str] = team.exchange(socket.gethostname())

    def told(self, value: Any) -> Any:
        """Process 0's value."""
        return self.team.exchange(value)[0]

    def questions(self, mine: Sequence[PointTask]) -> Iterator[PointTask]:
        """Those of process 0, in every process."""
        waiting = iter(mine)
        while (question := self.told(next(waiting, None))) is not None:
            yield question

    def prepare(self, engine: Runner, question: PointTask) -> Program:
        """The program, prepared in all processes; raises in all what one of them raises."""
        self.in_step = False
        program, error = None, None
        try:
            self._check_same(engine, question)
            program = engine.prepare(question.point)
        except ShardbenchError as refused:
            error = refused
        except Exception as failed:
            error = ShardbenchError(f"{type(failed).__name__}: {' '.join(str(failed).split())[:500]}")
        errors = self.team.exchange(error)
        # From here to the end of the point nothing is agreed on: who raises leaves the others.
        for each in errors:
            if each is not None:
                if program is not None:
                    program.close()
                self.in_step = True
                raise each
        assert program is not None
        return program

    def signed(self, row: Row) -> Row:
        """The row with the hosts that it was measured on, in order of process; the team is in step again."""
        self.in_step = True
        return replace(row, details={**row.details, "hosts": self.hosts})

    def _check_same(self, engine: Runner, question: PointTask) -> None:
        if (point_id(engine, question.point), code_id(engine)) != (question.point_id, question.code_id):
            raise ShardbenchError(
                f"engine.process_id={self.process.index}: its code, libraries or settings are not those of process 0; "
                "start all processes alike"
            )
