"""The rows of a folder of stores for the site: a damaged row costs no other row."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.compare.nights.read import DATE, Night
from bench.rows.claim import superseded
from bench.rows.part_time import moment, time_of
from bench.rows.store import Store, no_garbage_collection, read_part
from bench.rows.wrong_peaks import withhold_wrong_shares
from engines.core.row import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """``rows`` oldest first, each once; ``stores`` has the store of each, relative to the folder.

    ``nights`` are the stores whose folder is a date, oldest first, with the rows as they were stored. ``damaged`` names
    each line that is no row, and why. Rows whose share of a peak cannot be true are without it.
    """

    rows: Sequence[Row]
    stores: Sequence[str]
    nights: Sequence[Night]
    damaged: Sequence[str]


def read(folder: Path) -> Stored:
    """Read a store and all stores in folders below it; a folder without any has no rows.

    Raises:
        InvalidRequest: a store's folder cannot be read.
    """
    folders = sorted({path.parent.parent for path in folder.glob("**/rows/*.jsonl")})
    found: dict[bytes, tuple[str, Row, str]] = {}
    nights, damaged = [], list[str]()
    with no_garbage_collection():
        for each in folders:
            rows, faults = list[Row](), list[str]()
            name = each.relative_to(folder).as_posix()
            for part in Store(each).parts():
                time = time_of(part)
                for number, line, row, fault in read_part(part):
                    if row is None:
                        faults.append(f"{part} line {number}: {fault}")
                        continue
                    rows.append(row)
                    key = hashlib.blake2b(line.encode(), digest_size=16).digest()
                    found.setdefault(key, (moment(row.created_at, time), row, "" if name == "." else name))
            if DATE.fullmatch(each.name) and (rows or faults):
                nights.append(Night(day=each.name, store=each, rows=rows, damaged=faults))
            damaged += faults
        late = superseded(row for _, row, _ in found.values())
        ordered = sorted((each for each in found.values() if id(each[1]) not in late), key=lambda entry: entry[0])
        rows = withhold_wrong_shares([row for _, row, _ in ordered])
    nights.sort(key=lambda night: night.day)
    return Stored(rows=rows, stores=[store for _, _, store in ordered], nights=nights, damaged=damaged)
