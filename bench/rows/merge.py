"""Brings the rows of other stores into one, as where several machines each had a folder of their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.rows.part_time import time_of
from bench.rows.store import Store, line_of, read_part
from bench.storage.place import scheme_of
from engines.core.errors import InvalidRequest, ShardbenchError


@dataclass(frozen=True, slots=True)
class Merged:
    """Numbers of rows: stored now, and left out because the store has them."""

    stored: int
    known: int


def merge(store: Store, others: Sequence[str | Path]) -> Merged:
    """Store every row of other stores that this one does not have, each file with the time that it had there.

    The others are only read. An interrupted merge is finished by another one: no row is lost, and none is there twice.

    Raises:
        InvalidRequest: one of the others does not exist, or the store cannot be written.
        ShardbenchError: one of the others has a broken file; nothing is stored.
    """
    for folder in others:
        if scheme_of(folder) is None and not Path(folder).is_dir():
            raise InvalidRequest("data", folder, "is no folder", "use the results_dir of another store")
    parts = [part for folder in others for part in Store(folder).parts()]
    known = {line_of(row) for row in store.load()}
    missing: dict[Path, list[str]] = {}
    held = 0
    for part in parts:
        for number, _, row, fault in read_part(part):
            if row is None:
                raise ShardbenchError(
                    f"{part} line {number}: {fault}; shardbench results check repair=true "
                    f"results_dir={part.parent.parent} sets it aside"
                )
            line = line_of(row)
            if line in known:
                held += 1
            else:
                known.add(line)
                missing.setdefault(part, []).append(line)
    for part, lines in missing.items():
        store.write_part(lines, time_of(part))
    return Merged(sum(map(len, missing.values())), held)
