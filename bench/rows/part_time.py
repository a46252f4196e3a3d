"""When a stored row counts as made, so that no wrong clock decides which row is the newest.

A file of rows has the time of its writing in its name, and a writer never gives it a time before that of a file which
is already there: if a clock ran ahead, or has been set back since, the new file gets the next microsecond after the
newest file, and a mark. A row counts from its own ``created_at``, but from the time of its file

- where ``created_at`` is later than the file, which no true clock makes, or is no time;
- where the file is marked, because then one of the clocks was wrong.

So what is stored later is newer, whatever a clock said. Where all clocks were right, ``created_at`` decides.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from engines.core.row import Row

STAMP: Final = "%Y%m%dT%H%M%S%f"
MARK: Final = "s"
_NAME: Final = re.compile(rf"(\d{{8}}T\d{{12}})({MARK}?)-")
_UTC: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00")


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored row, the time from which it counts, and its line where it was kept."""

    moment: str
    row: Row
    line: str = ""


@dataclass(frozen=True, slots=True, order=True)
class PartTime:
    """The time of a file of rows in UTC, and whether its rows count from it rather than from their own times."""

    written: datetime
    marked: bool = False

    @property
    def stamp(self) -> str:
        """As a file's name begins with it."""
        return self.written.strftime(STAMP) + MARK * self.marked

    @property
    def iso(self) -> str:
        """As a row states a time: in milliseconds, so that files and rows of one instant stay in the store's order."""
        return self.written.isoformat(timespec="milliseconds")


def time_of(part: Path) -> PartTime | None:
    """The time in a file's name; None if it has none, as a file that somebody made by hand."""
    found = _NAME.match(part.name)
    if found is None:
        return None
    try:
        return PartTime(datetime.strptime(found[1], STAMP).replace(tzinfo=UTC), bool(found[2]))
    except ValueError:
        return None


def newest(parts: Iterable[Path]) -> PartTime | None:
    """The latest time of any file."""
    return max(filter(None, map(time_of, parts)), default=None)


def next_time(before: PartTime | None, now: datetime) -> PartTime:
    """The time of a file written now in a store whose newest file is of the time ``before``."""
    if before is None or now > before.written:
        return PartTime(now)
    return PartTime(before.written + timedelta(microseconds=1), marked=True)


def time_of_merged(entries: Iterable[Entry], parts: Iterable[Path]) -> PartTime | None:
    """The time of a file that takes the place of ``parts`` and holds their rows in the order of ``entries``.

    It is that of the newest, so that what is written meanwhile stays newer, and marked if any row counts from another
    time than its own, so that the order of the lines goes on to say which is newer.
    """
    last = newest(parts)
    if last is None:
        return None
    return replace(last, marked=any(entry.moment != moment(entry.row.created_at, None) for entry in entries))


def moment(created_at: str, part: PartTime | None) -> str:
    """The UTC time, in ISO 8601 to the millisecond, from which a row of a file counts; texts sort as times do."""
    own = created_at if isinstance(created_at, str) and _UTC.fullmatch(created_at) else _in_utc(created_at)
    if part is None:
        return own
    return part.iso if part.marked or not own else min(own, part.iso)


def _in_utc(text: object) -> str:
    """A time of another zone or without one (UTC) in UTC; empty if it is no time."""
    try:
        found = datetime.fromisoformat(str(text))
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return ""
    return found.isoformat(timespec="milliseconds")
