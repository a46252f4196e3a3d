"""Which version of the timing model gave compiled rows their seconds, and whether it still gives them the same.

An older row stays in its store, and is never shown beside newer ones without a word.
"""

from collections import Counter
from collections.abc import Iterable

from bench.rows.counted import counted
from engines.compiled.cost.version import is_present, stored_version
from engines.core.row import Row


def timing_change(old: Row, new: Row) -> str | None:
    """What to say of two compiled times of one point, if two versions of the timing model gave them."""
    versions = [stored_version(row.details) for row in (old, new)]
    if old.source != "compiled" or new.source != "compiled" or versions[0] == versions[1]:
        return None
    then, now = ("unknown" if each is None else str(each) for each in versions)
    return f"timing model {then} → {now}"


def timing_remarks(rows: Iterable[Row]) -> list[str]:
    """A sentence on the compiled rows whose seconds are not those of the present timing model; [] without any."""
    timed = [row for row in rows if row.source == "compiled" and row.status == "ok"]
    old = Counter(stored_version(row.details) for row in timed if not is_present(row.details))
    if not old:
        return []
    which = ", ".join(
        f"{count} by version {version}" if version is not None else f"{count} by one that they do not tell"
        for version, count in sorted(old.items(), key=lambda each: each[0] or 0)
    )
    return [
        f"{old.total()} of {counted(len(timed), 'compiled row')} were timed by an earlier version of the timing model "
        f"({which}): it may give their programs other seconds now. shardbench results rekey asks them again; do "
        "that before comparing them with newer rows."
    ]
