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
    claims = ((id(row), claim, row) for row in rows if (claim := claim_of(row)) is not None)
    return superseded_of((key, claim.id, row.point_id, claim.generation, row.program_id) for key, claim, row in claims)


def superseded_of(claimed: Iterable[tuple[int, str, str, int, str | None]]) -> set[int]:
    """The keys of rows as :func:`superseded`, of each row's key, claim, point, generation and program."""
    groups: dict[tuple[str, str], list[tuple[int, int, str | None]]] = {}
    for key, claim, point, generation, program in claimed:
        groups.setdefault((claim, point), []).append((key, generation, program))
    found: set[int] = set()
    for several in groups.values():
        for key, generation, program in several if len(several) > 1 else ():
            if any(later > generation and _same_program(other, program) for _, later, other in several):
                found.add(key)
    return found


def _same_program(one: str | None, other: str | None) -> bool:
    """Whether two programs are the same, as far as both rows say which ran."""
    return one == other or None in (one, other)


def without_superseded(rows: Sequence[Row]) -> list[Row]:
    """Rows without those that :func:`superseded` names, in the same order."""
    found = superseded(rows)
    return [row for row in rows if id(row) not in found] if found else list(rows)
