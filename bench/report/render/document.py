"""The report as files: text, tables and figures, written to a temporary folder and then moved into place."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.report.main.findings import Finding
from bench.report.render import latex, style
from bench.rows.counted import counted
from bench.rows.escape import markdown
from bench.rows.table import Table, to_csv, to_markdown
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.host.scratch import ScratchFolder

MANIFEST: Final = "manifest.json"
MOST_INLINE: Final = 20
"""Rows up to which a table is printed in the text."""
NO_FIGURES: Final = "Figures need matplotlib: pip install shardbench[report]."


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading with its text, figures and tables. ``draw`` is called only where figures are wanted.

    ``linked`` tables stand in files of their own, as do ``tables`` that are longer than :data:`MOST_INLINE` rows.
    """

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    linked: Sequence[Table] = ()
    draw: Callable[[], "Sequence[style.Drawn]"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A report. ``name`` is that of its text file, ``report`` for ``report.md``."""

    name: str
    title: str
    findings: Sequence[Finding]
    sections: Sequence[Section]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The files, relative to ``out``, the findings, and a remark where something was left out."""

    out: str
    files: Sequence[str]
    findings: Sequence[Finding]
    remarks: Sequence[str] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "out": self.out,
            "files": list(self.files),
            "findings": [asdict(finding) for finding in self.findings],
            "remarks": list(self.remarks),
        }


def write(document: Document, out: Path, formats: Sequence[str], endings: Sequence[str]) -> Written:
    """Write the document's files under ``out``: first into a temporary folder, then each moved into place.

    Files of an earlier report that this one does not have are removed; other files stay.

    Raises:
        InvalidRequest: ``out`` is not a folder, or cannot be written.
    """
    remarks = []
    if endings and not _has_matplotlib():
        endings = ()
        remarks.append(NO_FIGURES)
    try:
        out.mkdir(parents=True, exist_ok=True)
        scratch = ScratchFolder(out, prefix=".report-")
    except (OSError, ShardbenchError) as error:
        reason = error.strerror if isinstance(error, OSError) else "cannot be written"
        raise InvalidRequest("out", str(out), str(reason), "give a folder that can be written") from None
    with scratch as aside:
        _fill(aside, document, formats, endings, remarks)
        names = sorted(str(path.relative_to(aside)) for path in aside.rglob("*") if path.is_file())
        written = Written(out=str(out), files=[*names, MANIFEST], findings=document.findings, remarks=remarks)
        hashes = {name: hashlib.sha256((aside / name).read_bytes()).hexdigest() for name in names}
        manifest = written.to_dict() | {"out": ".", "sha256": hashes}
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        former = _former_files(out)
        for name in written.files:
            target = out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(aside / name, target)
        for name in former - set(written.files):
            (out / name).unlink(missing_ok=True)
    return written


def _fill(aside: Path, document: Document, formats: Sequence[str], endings: Sequence[str], remarks: list[str]) -> None:
    parts = [f"# {markdown(document.title)}", "", "## Findings", ""]
    parts += [
        f"- **{markdown(finding.topic)}** ({', '.join(finding.sources)}): {markdown(finding.sentence)}"
        for finding in document.findings
    ]
    parts += ["", *remarks]
    names: list[str] = []
    for section in document.sections:
        body = [section.text, ""] if section.text else []
        if section.draw is not None and endings:
            body += _figures(section.draw, aside / "figures", endings)
        inline = [table for table in section.tables if len(table.printed) <= MOST_INLINE]
        linked = [table for table in section.tables if table not in inline] + list(section.linked)
        body += [f"{to_markdown(table)}\n" for table in inline]
        body += [_link(table, formats) for table in linked]
        for table in (*inline, *linked):
            names.append(table.name)
            _write_table(table, aside / "tables", formats, in_own_file=table in linked)
        if body:
            parts += ["", f"## {markdown(section.title)}", "", *body]
    if "latex" in formats and names:
        text = latex.document(document.title, names)
        (aside / "tables" / f"{document.name}.tex").write_text(text, encoding="utf-8")
    if "markdown" in formats:
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"
        (aside / f"{document.name}.md").write_text(text, encoding="utf-8")


def _link(table: Table, formats: Sequence[str]) -> str:
    """The table's caption as a link to its own file."""
    count = len(table.rows)
    csv = f" ([CSV](tables/{table.name}.csv))" if "csv" in formats else ""
    return f"- [{markdown(table.caption)}](tables/{table.name}.md): {counted(count, 'row')}{csv}"


def _write_table(table: Table, folder: Path, formats: Sequence[str], *, in_own_file: bool) -> None:
    for name, ending, text in (
        ("csv", "csv", to_csv),
        ("latex", "tex", latex.to_latex),
        ("markdown", "md", to_markdown),
    ):
        if name in formats and (in_own_file or name != "markdown"):
            folder.mkdir(exist_ok=True)
            (folder / f"{table.name}.{ending}").write_text(text(table), encoding="utf-8")


def _figures(draw: "Callable[[], Sequence[style.Drawn]]", folder: Path, endings: Sequence[str]) -> list[str]:
    lines = []
    with style.settings():
        for drawn in draw():
            folder.mkdir(exist_ok=True)
            paths = style.save(drawn, folder, endings)
            shown = next((path for path in paths if path.suffix == ".png"), None)
            name = paths[0].name
            image = f"![{drawn.name}](figures/{shown.name})" if shown else f"[{name}](figures/{name})"
            lines += [image, "", f"*{markdown(drawn.caption)}*", ""]
    return lines


def _former_files(out: Path) -> set[str]:
    """Files that the manifest of an earlier report names, inside ``out`` only."""
    try:
        content = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        names = {str(name) for name in content["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {name for name in names if (out / name).resolve().is_relative_to(out.resolve())}


def _has_matplotlib() -> bool:
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None
