"""The report of compiler nights: findings, a figure, what each release did, and every figure by release."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.compare.nights.read import Night, read_nights
from bench.report.compiler.figure import over_releases
from bench.report.compiler.findings import release_findings, size
from bench.report.compiler.releases import QUANTITIES, Change, Release, changes, program_labels, releases_of
from bench.report.render.document import Document, Section
from bench.rows.counted import counted
from bench.rows.escape import markdown
from bench.rows.table import Column, Table
from engines.core.errors import ShardbenchError

NIGHTS: Final = "nightly"
COMMAND: Final = "shardbench nightly sweep=compiler-nightly"
ABOUT: Final = (
    "Each row of the history is the same program, compiled for the same slice by another release, and timed by the "
    "same model of the chip: **compiled** evidence, not a measurement. *time* is that of a decode step or of a whole "
    "prefill; *HBM traffic*, *communication* and *temporary memory* are of the whole phase on one chip. Communication "
    "changes where a release chooses another algorithm or order of collectives; what it overlaps shows in the time."
)


def nights_of(results_dir: str) -> list[Night]:
    """The nights under ``results_dir`` that have rows.

    Raises:
        ShardbenchError: there are none.
    """
    nights = read_nights(Path(results_dir) / NIGHTS)
    if not any(night.rows for night in nights):
        raise ShardbenchError(
            f"results_dir={results_dir}: holds no nights; run {COMMAND} results_dir={results_dir} first"
        )
    return nights


def compiler_report(nights: Sequence[Night], title: str) -> Document:
    """The report of the releases that ``nights`` were compiled with.

    Raises:
        ShardbenchError: no night has a compiled row.
    """
    releases = releases_of(nights)
    if not releases:
        raise ShardbenchError(f"compiler: no night has a compiled row; run {COMMAND} first")
    damaged = [line for night in nights for line in night.damaged]
    text = ABOUT + "".join(f" Damaged, left out: {markdown(line)}." for line in damaged)
    return Document(
        name="compiler",
        title=title,
        findings=release_findings(releases),
        sections=[
            Section(
                title="What each release did",
                text=text,
                tables=[_changes_table(releases)],
                linked=[_values_table(releases)],
                draw=lambda: [over_releases(releases)],
            ),
            Section(title="Time by release", tables=[_times_table(releases)]),
        ],
    )


def _changes_table(releases: Sequence[Release]) -> Table:
    """A line a release: of each quantity, the largest change over the release before."""
    found = {quantity.key: list(changes(releases, quantity)) for quantity in QUANTITIES}
    lines = []
    for release in releases:
        line: dict[str, Any] = {"day": release.day, "release": release.label}
        for key, each in found.items():
            mine = [change for change in each if change.release is release]
            line[f"{key}_change"] = _largest(mine) if mine else "first" if release is releases[0] else "none"
        refused = [row for row in release.rows.values() if row.status != "ok"]
        line["refused"] = f"{len(refused)} of {len(release.rows)}" if refused else ""
        line["code"] = (
            "too"
            if any(change.of_code for each in found.values() for change in each if change.release is release)
            else ""
        )
        lines.append(line)
    columns = [Column("day", "night"), Column("release")]
    columns += [Column(f"{quantity.key}_change", quantity.name) for quantity in QUANTITIES]
    columns += [Column("refused", "no answer")]
    if any(line["code"] for line in lines):
        columns.append(Column("code", "commit changed"))
    return Table(
        name="compiler_changes",
        caption="The largest change of each quantity over the release before, and how many programs changed",
        columns=columns,
        rows=lines,
        note=_refusals(releases),
    )


def _largest(found: Sequence[Change]) -> str:
    change = max(found, key=lambda each: abs(math.log(each.ratio)))
    row = change.row
    return (
        f"{size(change.ratio)} ({row.model}, {row.hw}, {row.phase} {row.batch_size}; {counted(len(found), 'program')})"
    )


def _refusals(releases: Sequence[Release]) -> str:
    """The newest error of each status that is no answer."""
    newest = {
        row.status: f"{row.status} under {release.label}: {row.error}"
        for release in releases
        for row in release.rows.values()
        if row.status != "ok" and row.error
    }
    return " ".join(newest.values())


def _times_table(releases: Sequence[Release]) -> Table:
    """A line a release, a column a program, in ms."""
    names = program_labels(releases)
    lines, shown = list[dict[str, Any]](), list[dict[str, Any]]()
    for release in releases:
        cells: dict[str, Any] = {"release": release.label}
        printed: dict[str, Any] = {"release": release.label}
        for key, row in release.rows.items():
            time = QUANTITIES[0].of(row)
            cells[names[key]] = time
            printed[names[key]] = row.status if time is None else f"{time * 1e3:.4g}"
        lines.append(cells)
        shown.append(printed)
    return Table(
        name="compiler_times",
        caption="Compiled time (ms) of a decode step, or of a whole prefill",
        columns=[Column("release"), *(Column(name) for name in names.values())],
        rows=lines,
        shown=shown,
    )


def _values_table(releases: Sequence[Release]) -> Table:
    """A line a release and program, with every quantity."""
    names = program_labels(releases)
    columns = [Column("day", "night"), Column("release"), Column("program"), Column("status")]
    columns += [Column(each.key, f"{each.name} ({each.unit})", each.scale, ".6g") for each in QUANTITIES]
    columns += [Column("code", "commit"), Column("point_id")]
    lines = [
        {
            "day": release.day,
            "release": release.label,
            "program": names[key],
            "status": row.status,
            **{quantity.key: quantity.of(row) for quantity in QUANTITIES},
            "code": release.code[:12],
            "point_id": row.point_id,
        }
        for release in releases
        for key, row in release.rows.items()
    ]
    return Table(name="compiler_values", caption="Every figure by release and program", columns=columns, rows=lines)
