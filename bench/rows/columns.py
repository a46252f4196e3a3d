"""The plain values of all rows of a store as columns, in files that are made from its rows and never stand for them.

A row is a line of JSON, and reading a million lines takes minutes. So numbers, texts and truth values of rows are kept
as Parquet in the user's cache folder, with the place of each row's line: what is chosen by them is then read from its
line. Files of rows never change, so a fragment of the cache holds while all files that it was made from are there and
the code that reads rows is the same; what no fragment holds is read from the rows themselves. Needs pyarrow.
"""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.rows.claim import claim_of
from bench.rows.part_time import moment, time_of
from bench.rows.row_types import kinds_of_fields
from bench.rows.store import Store, row_of
from bench.rows.upgrade import upgrade
from bench.storage.folder import FOLDERS
from engines.core.digest import digest
from engines.core.errors import ShardbenchError
from engines.core.row import Row
from engines.core.source import folder_digests
from engines.host.scratch import ScratchFolder

if TYPE_CHECKING:
    import pyarrow as pa

PACKAGES: Final = ("bench/rows", "engines/core", "engines/published", "conf/hw")
"""Whose source decides what a stored line is read as."""
MOST_FRAGMENTS: Final = 8
ROWS_OF_A_GROUP: Final = 20_000
"""Rows that are held in memory while a fragment is written."""
ORDER: Final = ("part", "offset", "moment", "claim_id", "claim_generation")
"""Columns beside those of a row: its file, where its line begins there, and what its order and its claim need."""
LINE: Final = ("length", "line_digest")
PLACE: Final = (*ORDER, *LINE)
META: Final = b"shardbench"
_COUNTED: Final = re.compile(r"^\d{8}T\d{12}s?-\d+-[0-9a-f]+-n(\d+)$")


def plain_fields() -> dict[str, type]:
    """The fields of a row that are columns, with their types: those that are no list and no mapping."""
    found: dict[str, type] = {}
    for name, kinds in kinds_of_fields().items():
        kind = next((each for each in (str, bool, float, int) if each in kinds), None)
        if kind is not None and list not in kinds and dict not in kinds:
            found[name] = kind
    return found


def counted_rows(part: Path) -> int | None:
    """How many rows a file has by its name; None of one that somebody made by hand, which may change."""
    found = _COUNTED.match(part.stem)
    return None if found is None else int(found[1])


class Columns:
    """The fragments of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        name = hashlib.blake2b(str(Path(store.results_dir).absolute()).encode(), digest_size=8).hexdigest()
        self.folder = base / "shardbench" / "columns" / name
        root = Path(__file__).parents[2]
        self._version = digest([folder_digests(root / each) for each in PACKAGES])

    def tables(self, columns: Sequence[str], *, keep_from: int) -> "list[pa.Table]":
        """``columns`` and :data:`ORDER` of all rows, in no order; no line twice.

        A fragment is made of the files that have none yet once they hold ``keep_from`` rows together.

        Raises:
            ShardbenchError: a file of rows has a line that is no row.
        """
        parts = self.store.parts()
        wanted = list(dict.fromkeys([*columns, *ORDER]))
        for least in (keep_from, 0):
            try:
                return self._tables(parts, wanted, least)
            except _OutOfOrder:
                self._remove(self.folder.glob("*.parquet"))  # one fragment of all files is in their order
        # But not if one of them is never kept.
        return [batch.select(wanted) for batch in self._batches(parts, (), "")]

    def _tables(self, parts: Sequence[Path], wanted: Sequence[str], keep_from: int) -> "list[pa.Table]":
        import pyarrow.parquet as pq

        fragments = self._fragments({part.name for part in parts})
        covered = {name for names in fragments.values() for name in names}
        new = [part for part in parts if part.name not in covered]
        kept = [part for part in new if counted_rows(part) is not None]
        if sum(counted_rows(part) or 0 for part in kept) >= keep_from:
            if len(fragments) >= MOST_FRAGMENTS:
                self._remove(fragments)
                fragments, kept = {}, [part for part in parts if counted_rows(part) is not None]
            made = self._write(kept, fragments)
            if made is not None:
                fragments[made] = [part.name for part in kept]
                covered |= set(fragments[made])
                new = [part for part in new if part.name not in covered]
        found = [pq.read_table(path, columns=wanted, memory_map=True) for path in fragments]
        self.store.saw(parts)
        if new:
            found += [batch.select(wanted) for batch in self._batches(new, *self._known(fragments))]
        return found

    def _fragments(self, present: set[str]) -> dict[Path, list[str]]:
        """Fragment → the files of rows that it was made from. If one does not hold any more, none does."""
        import pyarrow.parquet as pq

        found: dict[Path, list[str]] = {}
        for path in sorted(self.folder.glob("*.parquet")):
            try:
                said = json.loads((pq.read_schema(path).metadata or {})[META])
            except (OSError, KeyError, ValueError):
                said = {"version": None, "parts": []}
            found[path] = said["parts"]
            if said["version"] != self._version or not present.issuperset(said["parts"]):
                self._remove(self.folder.glob("*.parquet"))
                return {}
        return found

    def _known(self, fragments: Mapping[Path, Sequence[str]]) -> tuple[set[bytes], str]:
        """Digests of the lines that fragments hold, and the last of their files."""
        import pyarrow.parquet as pq

        found: set[bytes] = set()
        for path in fragments:
            found.update(pq.read_table(path, columns=["line_digest"])["line_digest"].to_pylist())
        return found, max((name for names in fragments.values() for name in names), default="")

    def _write(self, parts: Sequence[Path], fragments: Mapping[Path, Sequence[str]]) -> Path | None:
        """Make a fragment; None where the cache cannot be written."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            scratch = ScratchFolder(self.folder, prefix=".new-")
        except (OSError, ShardbenchError):
            return None
        path = self.folder / f"{secrets.token_hex(8)}.parquet"
        said = json.dumps({"version": self._version, "parts": [part.name for part in parts]})
        schema = _schema().with_metadata({META: said.encode()})
        try:
            with scratch as aside:
                with pq.ParquetWriter(aside / path.name, schema, compression="zstd") as writer:
                    for table in self._batches(parts, *self._known(fragments)):
                        writer.write_table(table.replace_schema_metadata(schema.metadata))
                (aside / path.name).rename(path)
        except (OSError, pa.ArrowException):
            return None
        return path

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            with suppress(OSError):
                path.unlink()

    def _batches(self, parts: Sequence[Path], elsewhere: Collection[bytes], last: str) -> "Iterator[pa.Table]":
        """Tables of the rows of files, in order, without lines that are ``elsewhere`` (up to the file ``last``).

        Of a line that is there twice, the first counts.

        Raises:
            _OutOfOrder: a line that is elsewhere is in a file that comes before some there.
        """
        values, own = _Values(), set[bytes]()
        for part in parts:
            written = time_of(part)
            for offset, line in _lines(self.store, part):
                key = hashlib.blake2b(line, digest_size=16).digest()
                if key in elsewhere and part.name < last:
                    raise _OutOfOrder
                if key not in own and key not in elsewhere:
                    own.add(key)
                    row = _row(self.store, part, line)
                    values.add(row, (part.name, offset, moment(row.created_at, written)), (len(line), key))
                if len(values) >= ROWS_OF_A_GROUP:
                    yield values.table()
                    values = _Values()
        if len(values):
            yield values.table()


class _OutOfOrder(Exception):
    """Fragments hold a line whose first place is in a file that they do not hold."""


class _Values:
    """Rows as tuples of their plain values, and the places of their lines."""

    def __init__(self) -> None:
        self._plain = attrgetter(*plain_fields())
        self._rows: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Row, order: tuple[str, int, str], line: tuple[int, bytes]) -> None:
        claim = claim_of(row)
        claimed = (None, None) if claim is None else (claim.id, claim.generation)
        self._rows.append((*self._plain(row), *order, *claimed, *line))

    def table(self) -> "pa.Table":
        import pyarrow as pa

        columns = zip(_schema(), zip(*self._rows, strict=True), strict=True)
        return pa.table([pa.array(values, field.type) for field, values in columns], schema=_schema())


def _schema() -> "pa.Schema":
    import pyarrow as pa

    types: Mapping[type, Any] = {str: pa.string(), bool: pa.bool_(), float: pa.float64(), int: pa.int64()}
    place = (pa.string(), pa.int64(), pa.string(), pa.string(), pa.int64(), pa.int64(), pa.binary(16))
    columns = {name: types[kind] for name, kind in plain_fields().items()}
    return pa.schema([*columns.items(), *zip(PLACE, place, strict=True)])


def _lines(store: Store, part: Path) -> Iterator[tuple[int, bytes]]:
    """Every line of a file with where it begins, without all of a large file in memory at once.

    Raises:
        ShardbenchError: lines are missing.
    """
    offset = count = 0
    with part.open("rb") if store.storage is FOLDERS else BytesIO(store.storage.read(part)) as file:
        for raw in file:
            yield offset, raw.rstrip(b"\r\n")
            offset, count = offset + len(raw), count + 1
    least = counted_rows(part) or 0
    if count < least:
        raise _broken(store, part, f"has {count} of its {least} rows")


def _row(store: Store, part: Path, line: bytes) -> Row:
    try:
        return row_of(line.decode(errors="replace"))
    except ShardbenchError as error:
        raise _broken(store, part, str(error)) from None


def _broken(store: Store, part: Path, fault: str) -> ShardbenchError:
    return ShardbenchError(
        f"{part}: {fault}; shardbench results check repair=true results_dir={store.results_dir} sets it aside"
    )


def rows_at(store: Store, places: Sequence[tuple[str, int, int, bytes]]) -> list[Row]:
    """The rows of lines, by file, begin, length and digest, in the order of ``places``.

    Raises:
        ShardbenchError: a line is not what it was when its columns were read.
    """
    by_part: dict[str, list[int]] = {}
    for index, place in enumerate(places):
        by_part.setdefault(place[0], []).append(index)
    found: dict[int, Row] = {}
    for name, indices in by_part.items():
        part = store.rows_dir / name
        for index, line in _lines_at(store, part, [(index, *places[index][1:3]) for index in indices]):
            if hashlib.blake2b(line, digest_size=16).digest() != places[index][3]:
                raise _broken(store, part, "has changed since it was written")
            found[index] = upgrade(Row.from_dict(json.loads(line)))  # which was found valid when its digest was made
    return [found[index] for index in range(len(places))]


def _lines_at(store: Store, part: Path, places: Sequence[tuple[int, int, int]]) -> Iterator[tuple[int, bytes]]:
    if store.storage is not FOLDERS:
        content = store.storage.read(part)
        yield from ((index, content[offset : offset + length]) for index, offset, length in places)
        return
    with part.open("rb") as file:
        for index, offset, length in sorted(places, key=lambda each: each[1]):
            file.seek(offset)
            yield index, file.read(length)
