"""``shardbench results``: lists and exports stored rows, checks and repairs their files."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.cli.args import PRICE, PRINT, RESULTS_DIR, Key
from bench.cli.values import FilePath, Integer, ListOf, StorePath, Text
from bench.rows.counted import counted
from engines.core.errors import InvalidRequest
from engines.core.row import PROGRAM, Row

SUMMARY: Final = "list, check, export, add, merge, compact or rekey the stored rows"
VERBS: Final[Mapping[str, str]] = {
    "list": "the row that stands for every point: the newest, but none that failed before one that did not",
    "check": "read every file and list broken lines; exit code 1 if there are any",
    "export": "write rows as csv, parquet, jsonl or markdown, or as a folder that asv reads",
    "add": "store rows from a file of JSON lines, such as those that a run printed because it could not store them",
    "merge": "store the rows of other stores, each once",
    "compact": "merge all files into one",
    "rekey": "convert rows of schema version 1 to the current keys if they are still valid, and drop the others; ask "
    "the points of compiled rows of an earlier timing model again",
}
WRITERS: Final = ("add", "merge")
"""Verbs that make the store if it is not there; the others read or change one that is."""
FILTERS: Final = ("model", "hw", "engine", "phase", "source", "status", "sweep")
KEYS: Final = (
    RESULTS_DIR,
    Key("out", None, "export: the file to write (default: stdout), for asv the folder", kind=FilePath()),
    Key("format", "csv", "export: the format", ("csv", "parquet", "jsonl", "markdown", "asv")),
    Key("history", False, "list, export: every stored row, not only the one that stands for each point"),
    *(
        Key(name, None, f"list, export: only rows of this {name}, or a list: [a,b]", kind=ListOf(Text()))
        for name in FILTERS
    ),
    Key("repair", False, "check: move broken files to RESULTS_DIR/broken, keep valid rows, remove abandoned files"),
    Key(
        "data",
        None,
        "add: a file of JSON lines, or a list of files; merge: the results_dir of another store, or a list",
        kind=ListOf(StorePath()),
    ),
    Key(
        "proven",
        None,
        'rekey: a JSON file {"point_id": true} of measured rows whose program is proven unchanged',
        kind=FilePath(),
    ),
    Key("max_parallel", 1, "rekey: points compiled at once, in processes of their own", kind=Integer(1)),
    Key("folder", None, "rekey: the clone of jax-llm-examples, whose rows do not name it", kind=FilePath()),
    Key("python", None, "rekey: the Python of jax-llm-examples or MaxText", kind=FilePath()),
    PRICE,
    PRINT,
)
EXAMPLES: Final = (
    "shardbench results list model=palm-540b source=[predicted,published]",
    "shardbench results check repair=true",
    "shardbench results export format=parquet out=rows.parquet",
    "shardbench results export format=asv out=asv history=true",
    "shardbench results add data=printed.txt",
    "shardbench results merge data=[host1/results,host2/results]",
    "shardbench results compact results_dir=results/main",
    "shardbench results rekey proven=proven.json",
    "shardbench results rekey max_parallel=2 results_dir=results/studies",
)


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Run the verb; without one, list. Returns 1 if ``check`` leaves broken files, else 0."""
    from bench.rows.at_read import at_read
    from bench.rows.prices import load_prices
    from bench.rows.store import Store
    from bench.storage.there import check_there

    store = Store(settings["results_dir"])
    as_json = settings["print"] == "json"
    if verb not in WRITERS:
        check_there(store.results_dir)
    if verb == "check":
        return _check(store, settings["repair"], as_json)
    if verb == "add":
        return _add(store, settings["data"], as_json)
    if verb == "merge":
        return _merge(store, settings["data"], as_json)
    if verb == "compact":
        return _compact(store, as_json)
    if verb == "rekey":
        return _rekey(store, settings, as_json)
    from bench.rows.select import select

    where = {name: settings[name] for name in FILTERS if settings[name] is not None}
    rows = at_read(select(store, where, history=settings["history"]), load_prices(settings["price"]))
    if verb == "export":
        return _export(rows, settings)
    return _list(rows, settings, as_json)


def _list(rows: list[Row], settings: Mapping[str, Any], as_json: bool) -> int:
    from bench.run.progress import MOST_ROWS_SHOWN, print_table

    if as_json:
        for row in rows:
            print(json.dumps(row.to_dict()))
        return 0
    if rows:
        print_table(rows[-MOST_ROWS_SHOWN:])
    if len(rows) > MOST_ROWS_SHOWN:
        print(f"the newest {MOST_ROWS_SHOWN} of {len(rows)} rows; shardbench results export writes all")
    else:
        print(f"{counted(len(rows), 'row')} in {settings['results_dir']}")
    return 0


def _check(store: Any, with_repair: bool, as_json: bool) -> int:
    from bench.rows.repair import inspect, repair

    found = inspect(store)
    moved = repair(store, found) if with_repair else []
    content = {
        "results_dir": str(store.results_dir),
        "files": found.parts,
        "rows": found.rows,
        "by_source_and_status": [
            {"source": source, "status": status, "rows": rows}
            for (source, status), rows in sorted(found.by_kind.items())
        ],
        "broken": [{"file": str(each.part), "line": each.line, "problem": each.problem} for each in found.faults],
        "abandoned": [str(path) for path in found.abandoned],
        "moved_to": [str(path) for path in moved],
    }
    if as_json:
        print(json.dumps(content))
    else:
        print(f"{counted(found.rows, 'valid row')} in {counted(found.parts, 'file')} of {store.results_dir}")
        for (source, status), rows in sorted(found.by_kind.items()):
            print(f"  {source} {status}: {rows}")
        for each in found.faults:
            print(f"broken: {each.part} line {each.line}: {each.problem}")
        for path in found.abandoned:
            print(f"{'removed the' if with_repair else 'unfinished'} file of a writer that died: {path}")
        for path in moved:
            print(f"broken file moved to {path}, its valid rows kept")
        if found.faults and not with_repair:
            print(f"to repair: shardbench results check repair=true results_dir={store.results_dir}")
    return 1 if found.faults and not with_repair else 0


def _add(store: Any, data: Any, as_json: bool) -> int:
    from bench.rows.add import add, to_json

    if data is None:
        raise InvalidRequest("data", "", "is required for add", "add data=FILE")
    found = add(store, [Path(each) for each in data])
    if as_json:
        print(to_json(str(store.results_dir), found))
        return 0
    known = f", {found.known} already stored" if found.known else ""
    others = f"; left out {counted(found.other_lines, 'line')} without a row" if found.other_lines else ""
    print(f"{counted(found.stored, 'row')} added to {store.results_dir}{known}{others}")
    return 0


def _merge(store: Any, data: Any, as_json: bool) -> int:
    from bench.rows.merge import merge

    if data is None:
        raise InvalidRequest("data", "", "is required for merge", "add data=FOLDER, the results_dir of another store")
    found = merge(store, data)
    if as_json:
        content = {"results_dir": str(store.results_dir), "added": found.stored, "already_stored": found.known}
        print(json.dumps(content))
    else:
        print(f"{counted(found.stored, 'row')} added to {store.results_dir}, {found.known} already stored")
    return 0


def _compact(store: Any, as_json: bool) -> int:
    from bench.rows.repair import compact

    files, rows = compact(store)
    if as_json:
        print(json.dumps({"results_dir": str(store.results_dir), "files_before": files, "rows": rows}))
    else:
        print(
            f"{counted(rows, 'row')} merged from {counted(files, 'file')} into {min(files, 1)} in {store.results_dir}"
        )
    return 0


def _rekey(store: Any, settings: Mapping[str, Any], as_json: bool) -> int:
    from bench.run.rekey import read_proven, rekey
    from bench.run.retime import retime

    proven = settings["proven"]
    found = rekey(store, {} if proven is None else read_proven(Path(proven)))
    not_recorded = {key: settings[key] for key in ("folder", "python") if settings[key] is not None}
    retimed = retime(store, not_recorded, settings["max_parallel"])
    dropped = [{"point_id": row.point_id, "point": _label(row), "reason": reason} for row, reason in found.dropped]
    rows = found.rows + len(retimed.changed)
    if as_json:
        content = {"rows": rows, "rekeyed": found.rekeyed, "dropped": dropped, "retimed": _told(retimed)}
        print(json.dumps({"results_dir": str(store.results_dir), **content, "moved_to": list(map(str, found.moved))}))
        return 0
    for each in dropped:
        print(f"dropped {each['point_id']} ({each['point']}): {each['reason']}")
    print(
        f"{counted(found.rekeyed, 'row')} got new keys, {len(dropped)} dropped; "
        f"{store.results_dir} holds {counted(rows, 'row')}"
    )
    for path in found.moved:
        print(f"old file moved to {path}")
    told = _told(retimed)
    for each in told["changed"]:
        print(f"changed {each['point_id']} ({each['point']}): {each['key']} {each['before']} → {each['now']}")
    for each in told["left"]:
        print(f"left as it was {each['point_id']} ({each['point']}): {each['reason']}")
    same, changed, left = told["same"], len(told["changed"]), len(told["left"])
    if same or changed or left:
        rest = f"; {left} left as they were" if left else ""
        print(f"{counted(same + changed, 'row')} re-timed: {same} the same, {changed} changed{rest}")
    return 0


def _told(found: Any) -> dict[str, Any]:
    """What :func:`bench.run.retime.retime` found, as plain values."""
    return {
        "same": len(found.same),
        "changed": [
            {
                "point_id": each.old.point_id,
                "point": _label(each.old),
                "key": each.key,
                "before": each.before,
                "now": each.now,
            }
            for each in found.changed
        ],
        "left": [{"point_id": row.point_id, "point": _label(row), "reason": reason} for row, reason in found.left],
    }


def _label(row: Row) -> str:
    """The row's engine and point as text."""
    if row.phase == PROGRAM:
        return f"{row.engine}, {row.model} on {row.num_chips} {row.hw}, {row.phase}"
    return (
        f"{row.engine}, {row.model} on {row.num_chips} {row.hw}, {row.phase}, batch {row.batch_size}, "
        f"{row.input_len} in, {row.output_len} out"
    )


def _export(rows: Sequence[Row], settings: Mapping[str, Any]) -> int:
    from bench.rows.export import as_text, write

    how, out = settings["format"], settings["out"]
    if how == "asv":
        return _export_asv(rows, settings)
    if out is None:
        if how == "parquet":
            raise InvalidRequest("out", "", "is required for format=parquet", "add out=rows.parquet")
        sys.stdout.write(as_text(rows, how))
        return 0
    write(rows, how, Path(out))
    if settings["print"] == "json":
        print(json.dumps({"out": out, "format": how, "rows": len(rows)}))
    else:
        print(f"{counted(len(rows), 'row')} in {out}")
    return 0


def _export_asv(rows: Sequence[Row], settings: Mapping[str, Any]) -> int:
    from bench.compare.nights.asv import as_nights, write_asv

    out = settings["out"]
    if out is None:
        raise InvalidRequest("out", "", "is required for format=asv", "add out=FOLDER")
    written, left_out = write_asv(as_nights(rows), Path(out))
    if settings["print"] == "json":
        print(json.dumps({"out": out, "format": "asv", "points": written, "rows_without_commit": left_out}))
    else:
        without = f"; left out {counted(left_out, 'row')} of no known commit" if left_out else ""
        print(f"{counted(written, 'point')} with a time in {out}{without}")
    return 0
