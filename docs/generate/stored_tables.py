"""Tables of the how-to pages that are made of the stored rows, so that a page shows what its sweep last answered."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.report.megatron.report import beside
from bench.report.packing.pairs import pairs_of
from bench.report.packing.report import ratio_table
from bench.rows.labels import answered, read_rows
from bench.rows.table import Table, to_markdown
from engines.core.row import Row

ROOT: Final = Path(__file__).parents[2]
MARK: Final = re.compile(r"^\{\{ stored (\w+) (\w+) \}\}$", re.MULTILINE)
"""``{{ stored STORE SOURCE }}``: a table of :data:`TABLES` over the rows of one kind of evidence, or of ``all``."""


def _packing(rows: list[Row]) -> Table:
    return ratio_table([pair for pair in pairs_of(rows) if pair.ratio is not None])


def _megatron(rows: list[Row]) -> Table:
    return beside([row for row in rows if row.runtime and answered(row) and (row.pipeline_parallel or 1) == 1])


TABLES: Final[dict[str, Callable[[list[Row]], Table]]] = {"packing": _packing, "megatron": _megatron}


def expand(markdown: str) -> str:
    """Put the tables in the place of their marks.

    Raises:
        LookupError: there is no such table.
    """
    return MARK.sub(lambda match: _block(match[1], match[2]), markdown)


def _block(store: str, source: str) -> str:
    if store not in TABLES:
        raise LookupError(f"stored {store}: is no table; use one of {', '.join(TABLES)}")
    rows = [row for row in read_rows(str(ROOT / "results" / store)) if source in ("all", row.source)]
    made = TABLES[store](rows)
    if not made.rows:
        return f"No {source} row is stored yet."
    return to_markdown(made)
