"""Chosen rows of a store: by the values of plain fields, without making a row of each that is not chosen.

A store of many rows is looked through by its columns (:mod:`bench.rows.columns`) where pyarrow is installed; a small
one, or without pyarrow, is read as a whole. Both give the same rows.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bench.rows.claim import superseded_of
from bench.rows.columns import LINE, Columns, counted_rows, plain_fields, rows_at
from bench.rows.standing import SAYS_NOTHING, standing_rows
from bench.rows.store import Store, frame_of
from engines.core.errors import InvalidRequest
from engines.core.row import ROW_FIELDS, Row

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MANY_ROWS: Final = 5_000
"""From here on reading every line takes longer than a second."""
STANDING: Final = ("point_id", "status", "valid", "program_id")
"""What decides which of a point's rows stands for it."""

Wanted = Mapping[str, Collection[str]]
"""Field → the values that are wanted, as text; ``None`` is no value."""


def select(store: Store, where: Wanted, *, history: bool = False) -> list[Row]:
    """The rows that stand for their points, or with ``history`` every row, oldest first, whose fields are as wanted.

    Raises:
        InvalidRequest: what is wanted is of no field of a row.
        ShardbenchError: a file of rows is broken; names it and the remedy.
    """
    _check_fields("where", where)
    if not _by_columns(store, where):
        rows = store.load() if history else list(standing_rows(store.load()).values())
        return [row for row in rows if all(str(getattr(row, name)) in values for name, values in where.items())]
    return _rows(store, _chosen(store, where, LINE, history=history))


def frame(
    store: Store, columns: Sequence[str] | None = None, where: Wanted | None = None, *, history: bool = False
) -> "pd.DataFrame":
    """:func:`select` as a frame of ``columns`` (all by default), of the types of :meth:`bench.rows.store.Store.frame`.

    Where the columns are numbers, texts and truth values, no row is made at all.

    Raises:
        InvalidRequest: a column is no field of a row.
        ShardbenchError: as :func:`select`.
    """
    _check_fields("columns", columns or ())
    _check_fields("where", where or {})
    plain = plain_fields()
    if columns is None or any(name not in plain for name in columns) or not _by_columns(store, where or {}):
        found = frame_of(select(store, where or {}, history=history))
        return found if columns is None else found[list(columns)]
    chosen = _chosen(store, where or {}, columns, history=history).select(list(columns))
    return _typed(chosen)


class Selection:
    """Rows of a store for several questions, of which a small store answers all from one read."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._all = None if _by_columns(store, {}) else store.load()

    def of_points(self, point_ids: Collection[str]) -> list[Row]:
        """Every row of some points, or of more, oldest first.

        Raises:
            ShardbenchError: as :func:`select`.
        """
        if self._all is not None:
            return self._all
        return select(self._store, {"point_id": frozenset(point_ids)}, history=True)

    def newest(self, engine: str, having: str, most: int) -> list[Row]:
        """The newest rows of an engine that have a value of a plain field, oldest first.

        Raises:
            ShardbenchError: as :func:`select`.
        """
        if self._all is not None:
            rows = [row for row in self._all if row.engine == engine and getattr(row, having) is not None]
            return rows[-most:]
        table = _chosen(self._store, {"engine": [engine]}, [having, *LINE], history=True)
        table = table.filter(table[having].is_valid())
        return _rows(self._store, table.slice(max(0, len(table) - most)))


def _check_fields(key: str, fields: Iterable[str]) -> None:
    for name in fields:
        if name not in ROW_FIELDS:
            raise InvalidRequest(key, name, "is no field of a row", "see the reference of rows")


def _by_columns(store: Store, where: Wanted) -> bool:
    if find_spec("pyarrow") is None or not plain_fields().keys() >= where.keys():
        return False
    return sum(counted_rows(part) or 0 for part in store.parts()) >= MANY_ROWS


def _chosen(store: Store, where: Wanted, columns: Sequence[str], *, history: bool) -> "pa.Table":
    """``columns`` of the chosen rows, in the order of :func:`select`."""
    import pyarrow as pa

    needed = dict.fromkeys([*where, *columns, *(() if history else STANDING), "point_id", "program_id"])
    tables = Columns(store).tables(list(needed), keep_from=MANY_ROWS)
    table = _in_order(_without_superseded(pa.concat_tables(tables)))
    wanted = np.ones(len(table), dtype=bool)
    for name, values in where.items():
        wanted &= _is_wanted(table[name], values).to_numpy()
    if history:
        return table.filter(pa.array(wanted))
    standing = _standing(table)
    chosen = standing[wanted[standing]]
    return table if len(chosen) == len(table) and (np.diff(chosen) > 0).all() else table.take(chosen)


def _is_wanted(column: "pa.ChunkedArray", values: Collection[str]) -> Any:
    """Where a column, written as text as Python writes it, is one of some values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_string(column.type):
        kept = [value for value in column.unique().to_pylist() if str(value) in values]
        return pc.is_in(column, value_set=pa.array(kept, column.type))
    wanted: list[str | None] = [*values, *([None] if "None" in values else [])]
    return pc.is_in(column, value_set=pa.array(wanted, pa.string()))


def _in_order(table: "pa.Table") -> "pa.Table":
    """Oldest first; rows of one moment in the order of their files and lines."""
    import pyarrow.compute as pc

    keys = [table[name].combine_chunks() for name in ("moment", "part", "offset")]
    rises = pc.greater(keys[2][1:], keys[2][:-1])
    for key in reversed(keys[:2]):
        rises = pc.if_else(pc.equal(key[1:], key[:-1]), rises, pc.greater(key[1:], key[:-1]))
    if pc.all(rises).as_py():
        return table
    return table.take(pc.sort_indices(table, [(name, "ascending") for name in ("moment", "part", "offset")]))


def _without_superseded(table: "pa.Table") -> "pa.Table":
    """Without rows of a claim that has a later generation: :func:`bench.rows.claim.superseded`."""
    import pyarrow.compute as pc

    generations = table["claim_generation"]
    if not (pc.max(generations).as_py() or 0):
        return table
    claims = table.select(["claim_id", "point_id", "claim_generation", "program_id"])
    pairs = claims.select(["claim_id", "point_id"]).to_pandas()
    # Few claims have several rows: only those are looked at one by one.
    again = np.flatnonzero(pairs["claim_id"].notna() & pairs.duplicated(keep=False))
    columns = claims.take(again).to_pydict().values()
    late = superseded_of(zip(again.tolist(), *columns, strict=True))
    kept = np.ones(len(table), dtype=bool)
    kept[list(late)] = False
    return table.filter(kept)


def _standing(table: "pa.Table") -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Indices of the rows that stand for their points: the law of :func:`bench.rows.standing.standing`, by columns.

    Points come in the order of their oldest rows.
    """
    points, point = _codes(table["point_id"])
    _, program = _codes(table["program_id"])
    status = table["status"].to_numpy()
    says = ~np.isin(status, SAYS_NOTHING)
    # 2: tells something of the point; 1: a refusal without a program; 0: was cut off.
    refused = (status == "unsupported") & (program < 0)
    level = np.where(says & ~refused, 2, np.where(says, 1, 0))
    best = np.zeros(points, np.int64)
    np.maximum.at(best, point, level)
    told = np.flatnonzero(level == best[point])
    last = np.zeros(points, np.int64)
    last[point[told]] = told  # of several the last is written last
    same = told[program[told] == program[last[point[told]]]]
    good = same[(status[same] == "ok") & table["valid"].to_numpy()[same].astype(bool)]
    found = last.copy()
    found[point[good]] = good
    return found


def _codes(column: "pa.ChunkedArray") -> tuple[int, "np.ndarray[Any, np.dtype[np.int64]]"]:
    """The number of different values, and for each row that of its value in order of appearance; -1 for none."""
    encoded = column.combine_chunks().dictionary_encode()
    return len(encoded.dictionary), encoded.indices.fill_null(-1).to_numpy().astype(np.int64)


def _rows(store: Store, table: "pa.Table") -> list[Row]:
    places = (table[name].to_pylist() for name in ("part", "offset", "length", "line_digest"))
    return rows_at(store, list(zip(*places, strict=True)))


def _typed(table: "pa.Table") -> "pd.DataFrame":
    """Columns with the types of :func:`bench.rows.store.frame_of`."""
    import pandas as pd
    import pyarrow as pa

    found = {}
    for name in table.column_names:
        column = table[name]
        if name == "created_at":
            times = pd.to_datetime(column.to_pandas(), utc=True, errors="coerce", format="ISO8601")
            found[name] = times.astype("datetime64[us, UTC]")
        elif pa.types.is_string(column.type):
            found[name] = pd.Series(pd.array(column.to_pandas(), dtype="string"))
        elif pa.types.is_float64(column.type):
            found[name] = column.to_pandas()
        else:
            dtype = "boolean" if pa.types.is_boolean(column.type) else "Int64"
            found[name] = column.to_pandas(types_mapper=lambda _, dtype=dtype: pd.api.types.pandas_dtype(dtype))
    return pd.DataFrame(found)
