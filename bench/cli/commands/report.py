"""``shardbench report``: tables, figures and findings from stored rows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.cli.args import PRICE, PRINT, Key
from bench.cli.values import Choice, FilePath, ListOf, StorePath, Text
from bench.report.kinds import KINDS, WHOLE, Asked
from bench.rows.counted import counted
from bench.storage.place import folder_beside
from bench.sweep.catalog import load_group
from engines.core.errors import InvalidRequest
from engines.core.row import Row

if TYPE_CHECKING:
    from bench.report.claims.checks import Check
    from bench.report.paper.closed_forms import ContextLimit
    from bench.report.render.document import Written

SUMMARY: Final = "write latency and MFU tables, figures and findings from stored rows"
PIVOT: Final = "pivot"
VERBS: Final[Mapping[str, str]] = {name: kind.summary for name, kind in KINDS.items()} | {
    PIVOT: "one figure by keys of your choice, printed and written; kinds of evidence never share a cell",
}
FORMATS: Final = ("markdown", "html", "csv", "latex")
ENDINGS: Final = ("png", "pdf", "svg")
PIVOT_KEYS: Final = ("rows", "columns", "value", "where", "aggregate")
KEYS: Final = (
    Key("results_dir", ["results"], "the store, or a list of stores: [a,b]", kind=ListOf(StorePath())),
    Key(
        "out",
        "reports/latest",
        "folder for the files; verbs and templates use a subfolder of their name",
        kind=FilePath(),
    ),
    Key("format", list(FORMATS), "formats to write", kind=ListOf(Choice(FORMATS))),
    Key(
        "figures",
        list(ENDINGS),
        "formats of the figures, or none",
        kind=ListOf(Choice(ENDINGS), words=("none",), least=0),
    ),
    Key("title", None, "the heading of the report"),
    PRICE,
    Key("template", None, "a Jinja template NAME.md.j2 (or .html, .tex, .csv, .txt) to fill instead", kind=FilePath()),
    Key("rows", None, "pivot: keys of a row whose values have a line each", kind=ListOf(Text())),
    Key("columns", None, "pivot: keys of a row whose values have a column each", kind=ListOf(Text())),
    Key("value", None, "pivot: the figure in the cells, such as step_time_s, mfu or cost_chip_s_per_token"),
    Key("where", None, "pivot: only rows of these values: [phase=decode,hw=h200]", kind=ListOf(Text())),
    Key("aggregate", None, "pivot: what a cell shows of several rows", ("median", "mean", "min", "max", "count")),
    Key(
        "wandb",
        "disabled",
        "log a table of the rows, and the report as an artifact, to W&B",
        ("auto", "offline", "online", "disabled"),
    ),
    PRINT,
)
EXAMPLES: Final = (
    "shardbench report",
    "shardbench report results_dir=results out=reports/mine format=[markdown,csv] figures=png",
    "shardbench report comparison print=json",
    "shardbench report paper results_dir=[results/reference,results/studies,results/calibration] out=reports/mine",
    "shardbench report compiler results_dir=results/compiler out=reports",
    "shardbench report pivot rows=model columns=hw value=cost_usd_per_mtok price=example where=[phase=decode] "
    "aggregate=min",
    "shardbench report studies results_dir=results out=reports/mine",
    "shardbench report offload results_dir=results/offload out=reports",
    "shardbench report pivot rows=[model,source] columns=num_chips value=mfu where=[phase=decode] aggregate=max",
    "shardbench report template=examples/reports/decode.md.j2 results_dir=results/reference out=reports/mine",
)


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Write the report. Returns 1 if a claim that could be evaluated, or an entry of Table 1, fails, else 0."""
    from bench.report.render.document import write
    from bench.rows.timed_by import timing_remarks

    _check_keys(verb, settings)
    formats = [name for name in FORMATS if name in settings["format"]]
    endings = [] if settings["figures"] == "none" else [name for name in ENDINGS if name in settings["figures"]]
    kind = KINDS.get(verb or "", WHOLE)
    rows = [] if kind.needs == "nights" else _stored(settings, needed=kind.needs == "rows")
    out = Path(settings["out"])
    checks: Sequence[Check] = ()
    entries: Sequence[ContextLimit] = ()
    more: dict[str, Any] = {}
    if verb == PIVOT:
        written, more = _pivoted(rows, settings, formats)
    elif settings["template"] is not None:
        written = _from_template(rows, settings["template"], out, endings)
    else:
        made = kind.make(Asked(rows=rows, stores=settings["results_dir"], out=out, title=settings["title"]))
        rows = rows if made.rows is None else list(made.rows)
        written = write(made.document, out / kind.folder, formats, endings, timing_remarks(rows))
        checks, entries = made.checks, made.entries
    _track(settings["wandb"], settings["results_dir"][0], rows, written)
    if settings["print"] == "json":
        all_checks = [*map(_plain, checks), *(entry.to_dict() for entry in entries)]
        print(json.dumps(written.to_dict() | {"checks": all_checks} | more, ensure_ascii=False))
    else:
        _print(written, checks)
    passed = [*(check.passed for check in checks), *(entry.passed for entry in entries)]
    return 1 if False in passed else 0


def _check_keys(verb: str | None, settings: Mapping[str, Any]) -> None:
    """Refuse keys that this report would leave unread, and a pivot without what it is of."""
    for key in PIVOT_KEYS:
        if verb != PIVOT and settings[key] is not None:
            raise InvalidRequest(key, settings[key], "is a key of the verb pivot", "ask shardbench report pivot")
    if verb is not None and settings["template"] is not None:
        remedy = f"ask shardbench report template=FILE without {verb}"
        raise InvalidRequest("template", settings["template"], "is a report of its own", remedy)
    for key in ("rows", "value"):
        if verb == PIVOT and settings[key] is None:
            raise InvalidRequest(key, "", "is required for pivot", f"add {key}=KEY, a key of a row")


def _pivoted(
    rows: Sequence[Row], settings: Mapping[str, Any], formats: Sequence[str]
) -> "tuple[Written, dict[str, Any]]":
    from bench.report.own.pivot import Question, conditions, pivot
    from bench.report.render.document import Document, Front, write
    from bench.rows.table import to_markdown
    from bench.rows.timed_by import timing_remarks

    question = Question(
        rows=settings["rows"],
        columns=settings["columns"] or (),
        value=settings["value"],
        where=conditions(settings["where"] or ()),
        aggregate=settings["aggregate"],
    )
    table = pivot(rows, question)
    title = settings["title"] or table.caption
    document = Document(name="pivot", title=title, findings=[], sections=[], front=Front(findings=[], table=table))
    written = write(document, Path(settings["out"]) / "pivot", formats, [], timing_remarks(rows))
    if settings["print"] != "json":
        print(to_markdown(table))
    return written, {"pivot": {"caption": table.caption, "note": table.note, "rows": list(table.rows)}}


def _from_template(rows: Sequence[Row], path: str, out: Path, endings: Sequence[str]) -> "Written":
    from bench.report.own.template import Made
    from bench.report.render import style
    from bench.report.render.document import NO_FIGURES, has_matplotlib, place
    from bench.rows.timed_by import timing_remarks

    can_draw = not endings or has_matplotlib()
    remarks = [*timing_remarks(rows), *([] if can_draw else [NO_FIGURES])]
    made = Made(Path(path), rows, endings if can_draw else ())
    text = made.text()

    def fill(aside: Path) -> None:
        (aside / made.name).write_text(text, encoding="utf-8")
        with style.settings():
            for drawn in made.drawn:
                (aside / "figures").mkdir(exist_ok=True)
                style.save(drawn, aside / "figures", endings)

    return place(out / made.name.partition(".")[0], fill, remarks=remarks)


def _stored(settings: Mapping[str, Any], *, needed: bool) -> list[Row]:
    """The rows of the stores; none where they have none and none are ``needed``."""
    from bench.rows.labels import read_rows
    from bench.rows.store import Store

    results_dirs = settings["results_dir"]
    if not needed and not any(Store(each).load() for each in results_dirs):
        return []
    return read_rows(*results_dirs, price=settings["price"])


def _track(mode: str, results_dir: str, rows: Sequence[Row], written: "Written") -> None:
    """Log one W&B run, kept in the store, with the rows as a table and every file of the report as an artifact."""
    from bench.run.tracking import open_tracker

    tracker = open_tracker({**load_group("wandb", "default"), "mode": mode, "results_dir": folder_beside(results_dir)})
    if tracker is not None:
        tracker.log_report("report", rows, {name: Path(written.out) / name for name in written.files})
        tracker.close()


def _plain(check: "Check") -> dict[str, Any]:
    return {
        "claim": check.claim.text,
        "relation": check.claim.relation,
        "stated": check.claim.stated,
        "unit": check.claim.unit,
        "value": check.value,
        "tolerance": check.tolerance,
        "source": check.source or None,
        "engine": check.engine or None,
        "passed": check.passed,
    }


def _print(written: "Written", checks: "Sequence[Check]") -> None:
    for finding in written.first:
        print(f"{finding.topic} ({', '.join(finding.sources)}): {finding.sentence}")
    for remark in written.remarks:
        print(remark)
    undecided = sum(check.passed is None for check in checks)
    if undecided:
        print(f"{undecided} claims were not evaluated: the store has no rows for them")
    tables = [name for name in written.files if name.startswith("tables/")]
    print(f"{counted(len(written.files), 'file')} in {written.out}:")
    for name in written.files:
        if name not in tables:
            print(f"  {Path(written.out) / name}")
    if tables:
        print(f"  {Path(written.out) / 'tables'}: {counted(len(tables), 'table')}")
