"""Rows as a frame that knows its units."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from bench.rows.metrics import METRICS
from engines.core.errors import ShardbenchError
from engines.core.row import Row

if TYPE_CHECKING:
    import pandas as pd

SOURCES: Final = {
    "measured": "timed here, by the same rules for every engine",
    "compiled": "the XLA compiler's schedule, timed, for chips that are not there",
    "predicted": "closed forms of compute, memory and communication",
    "published": "measured by others; the column reference says where",
}
"""Kind of evidence → what it is."""
AT_READ: Final = frozenset({"energy_j", "energy_source", "cost_usd_per_mtok", "price"})
"""Columns that no store holds: :mod:`bench.rows.at_read`."""
COUNTS: Final = {"num_chips": "chips", "batch_size": "sequences", "input_len": "tokens", "output_len": "tokens"}
"""Key of a point → what it counts."""


def load(
    results: str | os.PathLike[str] = "results",
    *,
    history: bool = False,
    price: str = "none",
    columns: Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> "pd.DataFrame":
    """The rows of a store, one a point: the one that stands for it. See :func:`bench.rows.standing.standing`.

    Columns are the keys of a row, values SI units and fractions (docs: reference, rows); a missing value is None's.
    ``frame.attrs["units"]`` has the unit of each column that has one, ``frame.attrs["titles"]`` the heading of each
    metric as tables print it, and ``frame.attrs["sources"]`` says what the four values of the column ``source`` are.

    Args:
        results: the folder of the store, or its URL in an object store.
        history: every stored row, oldest first, in place of one a point.
        price: dollars of chips, by which rows have ``cost_usd_per_mtok``: a choice of ``conf/price``, or a file.
        columns: only these. Of a store of many rows this is quick where they are numbers, texts and truth values and
            ``shardbench[parquet]`` is installed; rows then come in the order in which their points were first stored.
        where: only rows with these stored values: ``{"model": "palm-540b", "phase": ["prefill", "decode"]}``.

    Raises:
        InvalidRequest: there is no such folder, no such column, or no such prices.
        ShardbenchError: the store is empty, or has a damaged file; the sentence says how to repair it.
    """
    from bench.rows.at_read import at_read
    from bench.rows.labels import in_order
    from bench.rows.prices import load_prices
    from bench.rows.select import frame, select
    from bench.rows.store import Store
    from bench.storage.place import place_of, scheme_of
    from bench.storage.there import check_there

    folder = place_of(os.fspath(results))
    is_url = scheme_of(folder) is not None
    folder = folder if is_url else folder.expanduser()
    store = Store(folder)
    check_there(folder, "results")
    if not store.parts():
        inside = [] if is_url else sorted(str(path.parent) for path in folder.glob("*/rows") if path.is_dir())
        remedy = (
            f"use one of {', '.join(inside)}" if inside else f"bench.ask(…, results_dir={str(folder)!r}) stores one"
        )
        raise ShardbenchError(f"results={folder}: holds no rows; {remedy}")
    wanted = {name: _texts(value) for name, value in (where or {}).items()}
    if columns is not None and not AT_READ & {*columns, *wanted}:
        return _with_units(frame(store, columns, wanted, history=history))
    rows = select(store, wanted, history=history)
    found = framed(at_read(rows if history else in_order(rows), load_prices(price)))
    return found if columns is None else found[list(columns)]


def _texts(value: Any) -> frozenset[str]:
    several = isinstance(value, Iterable) and not isinstance(value, str)
    return frozenset(map(str, value if several else [value]))


def framed(rows: Iterable[Row]) -> "pd.DataFrame":
    """Rows as a frame with the columns, the types and the attributes that :func:`load` describes."""
    from bench.rows.store import frame_of

    return _with_units(frame_of(list(rows)))


def _with_units(frame: "pd.DataFrame") -> "pd.DataFrame":
    frame.attrs = {"units": units(), "titles": {name: title_of(name) for name in METRICS}, "sources": dict(SOURCES)}
    return frame


def units() -> dict[str, str]:
    """Column → the unit of its values; columns without one are not in it."""
    metrics = {name: metric.si_unit for name, metric in METRICS.items() if metric.si_unit}
    return COUNTS | {"samples_s": "s"} | metrics


def title_of(column: str) -> str:
    """What a column is called in print, with the unit in which it is printed: ``step time (ms)``."""
    if column in METRICS:
        return METRICS[column].title
    words = column.replace("_", " ")
    return f"{words} ({COUNTS[column]})" if column in COUNTS and COUNTS[column] not in words else words
