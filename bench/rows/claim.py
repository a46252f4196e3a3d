"""One row a claim: how a row that was stored too late is told from one that was measured again on purpose.

A command that shares a store stores its rows under the claim of its lease (:mod:`bench.rows.lease`): an ID that is made
with the first lease on a point and taken over with it, and the generation of the lease. Two rows of one point and one
ID mean that the earlier holder was asleep when its lease was taken over, and stored its row all the same. The row of
the last generation counts; the other is ignored wherever rows are loaded, and gone with the next compaction.
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
    """id() of each row of a claim that has a row of a later generation."""
    last: dict[tuple[str, str], tuple[int, Row]] = {}
    found: set[int] = set()
    for row in rows:
        claim = claim_of(row)
        if claim is None:
            continue
        key = (claim.id, row.point_id)
        before = last.get(key)
        if before is None:
            last[key] = (claim.generation, row)
        elif claim.generation > before[0]:
            found.add(id(before[1]))
            last[key] = (claim.generation, row)
        elif claim.generation < before[0]:
            found.add(id(row))
    return found


def without_superseded(rows: Sequence[Row]) -> list[Row]:
    """Rows without those that :func:`superseded` names, in the same order."""
    found = superseded(rows)
    return [row for row in rows if id(row) not in found] if found else list(rows)
