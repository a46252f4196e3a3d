"""The dashboard as a folder of files, or as one file."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bench.compare.nights.steps import StepRules
from bench.compare.verdicts import Rules
from bench.dashboard import compare, history, overview, timeline, truth
from bench.dashboard.bundle import folder, one_file, plotly
from bench.dashboard.columns import columns, outcome
from bench.dashboard.details import CHUNK, chunks
from bench.dashboard.judged import judged_nights
from bench.dashboard.read import Stored, read
from bench.rows.at_read import at_read
from bench.rows.atomic import beside, replaced
from bench.rows.counted import counted
from bench.rows.prices import Prices, load_prices
from engines.core.errors import InvalidRequest
from engines.host.held_back import signals_held

MARKER: Final = "data/site.js"
"""A folder with this file is a site, which a new one may replace."""


def write(
    results_dir: Path, out: Path, title: str, rules: Rules, steps: StepRules | None = None, prices: Prices | None = None
) -> int:
    """Write the site of all rows under ``results_dir``: one file if ``out`` ends in ``.html``, else a folder.

    Either is replaced as a whole. ``steps`` judge the last of nights; a night passes its own, so that the page says
    what it said. Rows have energy, and dollars by ``prices``.

    Returns:
        the number of rows.

    Raises:
        Unsupported: plotly is not installed.
        InvalidRequest: the store cannot be read or holds no rows, or ``out`` cannot be written.
    """
    plotly()  # which is refused before all rows are read
    stored = read(results_dir)
    if not stored.rows and not stored.damaged:  # damaged lines have a page that names them
        remedy = "run shardbench run first, or use another store"
        raise InvalidRequest("results_dir", results_dir, "holds no rows", remedy)
    stored = replace(stored, rows=at_read(stored.rows, prices or load_prices("none")))
    data = data_of(stored, results_dir, title, rules, steps or StepRules())
    if out.suffix.lower() in (".html", ".htm"):
        with replaced(out) as aside, aside.open("w", encoding="utf-8") as file:
            file.writelines(one_file(title, data))
    else:
        _write_folder(out, title, data)
    return len(stored.rows)


def data_of(stored: Stored, results_dir: Path, title: str, rules: Rules, steps: StepRules) -> dict[str, Any]:
    """The site's data by name: ``site``, ``rows``, the pages' own, and what they load later."""
    nights = {store: night.day for night in stored.nights for store in [_name(night.store, results_dir)]}
    pages: dict[str, Any] = {"rows": columns(stored.rows, stored.stores, nights)}
    judged = judged_nights(stored, steps, rules.threshold)
    if judged is not None:
        pages |= {
            "overview": overview.data(judged),
            "history": history.data(judged),
            "compare": compare.data(judged, stored),
        }
    turns = timeline.data(stored.rows, stored.stores, results_dir)
    pages |= {"truth": truth.data(stored.rows), "timeline": turns.pop("timeline")}
    about = {
        "title": title,
        "rows": len(stored.rows),
        "chunk": CHUNK,
        "damaged": list(stored.damaged),
        "data": list(pages),
        "summary": _summary(stored),
        "empty": f"No rows in {results_dir}. shardbench run makes some: shardbench run results_dir={results_dir}",
    }
    details = {f"details/{place}": chunk for place, chunk in enumerate(chunks(stored.rows))}
    return {"site": about, **pages, **details, **turns}


def _name(store: Path, results_dir: Path) -> str:
    name = store.relative_to(results_dir).as_posix()
    return "" if name == "." else name


def _summary(stored: Stored) -> str:
    """One sentence on what the site holds."""
    if not stored.rows:
        return "No rows."
    outcomes = Counter(outcome(row) for row in stored.rows)
    told = ", ".join(f"{count:,} {name}" for name, count in outcomes.most_common())
    dates = sorted(row.created_at[:10] for row in stored.rows if row.created_at)
    span = f", from {dates[0]} to {dates[-1]}" if dates else ""
    return f"{counted(len(stored.rows), 'row')} ({told}){span}."


def _write_folder(out: Path, title: str, data: Mapping[str, Any]) -> None:
    """Write beside ``out``, then put the new folder in the place of the old one."""
    out = out.absolute()
    try:
        _check_free(out)
        with beside(out) as aside:
            new, old = aside / "new", aside / "old"
            for name, text in folder(title, data):
                path = new / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            with signals_held():
                _exchange(new, out, old)
    except OSError as error:
        raise InvalidRequest("out", out, f"cannot be written ({error.strerror})", "use a writable folder") from None


def _exchange(new: Path, out: Path, old: Path) -> None:
    """Put ``new`` where ``out`` is, which becomes ``old``; if that fails, ``out`` is as it was."""
    if not out.exists():
        new.rename(out)
        return
    out.rename(old)
    try:
        new.rename(out)
    except OSError:
        old.rename(out)
        raise


def _check_free(out: Path) -> None:
    """Refuse what is no site and would be lost."""
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise InvalidRequest("out", out, "is a folder with other files", "use a new folder, or page.html for one file")
    if out.exists() and not out.is_dir():
        raise InvalidRequest("out", out, "is a file", "use a folder, or a name that ends in .html")
