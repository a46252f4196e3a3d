"""One row a claim: how a row that was stored too late is told from one that was measured again on purpose.

A command that shares a store stores its rows under the claim of its lease (:mod:`bench.rows.lease`): an ID that is made
with the first lease on a point and taken over with it, and the generation of the lease. Two rows of one point and one
ID mean that the earlier holder was asleep when its lease was taken over, and stored its row all the same. The row of
the last generation counts; the other is ignored wherever rows are loaded, and gone with the next compaction. Rows of
two programs are two answers, whatever their claims.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engines.core.row import Row


@dataclass(frozen=True, slots=True)
class Claim:
    """An ID, and the generation of the lease."""

    id: str
    generation: int

    def __str__(self) -> str:
        return f"{self.id}.{self.generation}"


def new_id() -> str:
    """An ID that no other claim has."""
    return secrets.token_hex(6)


def claim_of(row: Row) -> Claim | None:
    """The claim under which a row was stored; None if it was stored under none."""
    if row.claim is None:
        return None
    known, _, generation = row.claim.rpartition(".")
    return Claim(known, int(generation)) if known and generation.isdecimal() else None


def superseded(rows: Iterable[Row]) -> set[int]:
    """id() of each row of a claim that has a row of a later generation, and of no other program."""
    claimed: dict[tuple[str, str], list[tuple[int, Row]]] = {}
    for row in rows:
        claim = claim_of(row)
        if claim is not None:
            claimed.setdefault((claim.id, row.point_id), []).append((claim.generation, row))
    found: set[int] = set()
    for several in claimed.values():
        for generation, row in several if len(several) > 1 else ():
            if any(later > generation and _same_program(other, row) for later, other in several):
                found.add(id(row))
    return found


def _same_program(one: Row, other: Row) -> bool:
    """Whether two rows are of the same program, as far as both say which ran."""
    return one.program_id == other.program_id or None in (one.program_id, other.program_id)


def without_superseded(rows: Sequence[Row]) -> list[Row]:
    """Rows without those that :func:`superseded` names, in the same order."""
    found = superseded(rows)
    return [row for row in rows if id(row) not in found] if found else list(rows)
