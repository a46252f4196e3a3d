"""The report as files: text, tables and figures, written to a temporary folder and then moved into place."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.report.main.findings import Finding
from bench.report.render import html, latex, latex_document, style
from bench.report.render.blocks import Block, Findings, Heading, Image, Inline, Linked, Navigation, Text, page
from bench.rows.atomic import beside
from bench.rows.escape import markdown
from bench.rows.table import Table, to_csv, to_markdown
from engines.host.held_back import signals_held

MANIFEST: Final = "manifest.json"
MOST_INLINE: Final = 20
"""Rows up to which a table is printed in the text."""
APPENDIX: Final = "appendix"
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
class Front:
    """The first page: a few findings, one figure and one table, and a sentence under them."""

    findings: Sequence[Finding]
    draw: Callable[[], "Sequence[style.Drawn]"] | None = None
    table: Table | None = None
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A report. ``name`` is that of its text file, ``report`` for ``report.md``.

    With a ``front`` that file is one page, and all sections, with the findings that are not on it, are the appendix.
    """

    name: str
    title: str
    findings: Sequence[Finding]
    sections: Sequence[Section]
    front: Front | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """The files, relative to ``out``, the findings, and a remark where something was left out.

    ``first`` are the findings of the first page.
    """

    out: str
    files: Sequence[str]
    findings: Sequence[Finding]
    first: Sequence[Finding]
    remarks: Sequence[str] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "out": self.out,
            "files": list(self.files),
            "findings": [asdict(finding) for finding in self.findings],
            "remarks": list(self.remarks),
        }


def write(
    document: Document, out: Path, formats: Sequence[str], endings: Sequence[str], remarks: Sequence[str] = ()
) -> Written:
    """Write the document's files under ``out``: see :func:`place`. ``remarks`` stand under its findings.

    Raises:
        InvalidRequest: ``out`` is not a folder, or cannot be written.
    """
    remarks = [*remarks]
    if endings and not has_matplotlib():
        endings = ()
        remarks.append(NO_FIGURES)
    first = document.findings if document.front is None else document.front.findings
    return place(
        out, lambda aside: _fill(aside, document, formats, endings, remarks), document.findings, first, remarks
    )


def place(
    out: Path,
    fill: Callable[[Path], None],
    findings: Sequence[Finding] = (),
    first: Sequence[Finding] = (),
    remarks: Sequence[str] = (),
) -> Written:
    """Files that ``fill`` writes into a temporary folder, all then moved into place under ``out``.

    A command that is told to end leaves the former report or the new one, no mixture. Files of an earlier report that
    this one does not have are removed; other files stay.

    Raises:
        InvalidRequest: ``out`` is not a folder, or cannot be written.
    """
    # Inside ``out``, which may be a mount of its own.
    with beside(out / MANIFEST, prefix=".report-") as aside:
        fill(aside)
        names = sorted(str(path.relative_to(aside)) for path in aside.rglob("*") if path.is_file())
        written = Written(str(out), [*names, MANIFEST], findings, first, remarks)
        hashes = {name: hashlib.sha256((aside / name).read_bytes()).hexdigest() for name in names}
        manifest = written.to_dict() | {"out": ".", "sha256": hashes}
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        with signals_held():
            former = _former_files(out)
            for name in written.files:
                target = out / name
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(aside / name, target)
            for name in former - set(written.files):
                (out / name).unlink(missing_ok=True)
    return written


def _fill(aside: Path, document: Document, formats: Sequence[str], endings: Sequence[str], remarks: list[str]) -> None:
    pages = _pages(aside, document, formats, endings, remarks)
    for name, blocks in pages.items():
        text = page(blocks)
        _write_page(aside / name, f"{document.title}: appendix" if name == APPENDIX else document.title, text, formats)
    if "latex" in formats:
        text = latex_document.document(document.title, list(pages.values()))
        (aside / f"{document.name}.tex").write_text(text, encoding="utf-8")


def _pages(
    aside: Path, document: Document, formats: Sequence[str], endings: Sequence[str], remarks: Sequence[str]
) -> dict[str, list[Block]]:
    """The blocks of each page by its name; figures and tables are written on the way."""
    first = document.front
    told = document.findings if first is None else first.findings
    top: list[Block] = [Heading(document.title, 1)]
    top += [Heading("Findings"), Findings(told)] if told else []
    top += [Text(remark) for remark in remarks]
    body: list[Block] = []
    for section in document.sections:
        blocks = _section(aside, section, formats, endings)
        if blocks:
            body += [Heading(section.title), *blocks]
    if first is None:
        return {document.name: [*top, *body]}
    shown = Section(title="", tables=_present(first.table), draw=first.draw)
    top += _section(aside, shown, formats, endings, most_inline=len(first.table.printed) if first.table else 0)
    titles = ", ".join(markdown(block.text) for block in body if isinstance(block, Heading))
    further = [each for each in document.findings if each not in told]
    if further:
        body = [Heading("Further findings"), Findings(further), *body]
    if not body:
        return {document.name: [*top, Text(first.text)]}
    top += [Text(first.text)] if first.text else []
    top.append(Navigation(f"The [appendix]({APPENDIX}.md) has all else: {titles or 'further findings'}."))
    return {document.name: top, APPENDIX: [Heading(f"{document.title}: appendix", 1), *body]}


def _section(
    aside: Path, section: Section, formats: Sequence[str], endings: Sequence[str], most_inline: int = MOST_INLINE
) -> list[Block]:
    blocks: list[Block] = [Text(section.text)] if section.text else []
    if section.draw is not None and endings:
        blocks += _figures(section.draw, aside / "figures", endings)
    inline = [table for table in section.tables if len(table.printed) <= most_inline]
    linked = [table for table in section.tables if table not in inline] + list(section.linked)
    blocks += [Inline(table) for table in inline]
    blocks += [Linked(table, "csv" in formats) for table in linked]
    for table in (*inline, *linked):
        _write_table(table, aside / "tables", formats, in_own_file=table in linked)
    return blocks


def _write_page(path: Path, title: str, text: str, formats: Sequence[str]) -> None:
    """``path`` is without an ending, which may hold dots."""
    path.parent.mkdir(exist_ok=True)
    if "markdown" in formats:
        path.with_name(f"{path.name}.md").write_text(text, encoding="utf-8")
    if "html" in formats:
        path.with_name(f"{path.name}.html").write_text(html.page(title, text), encoding="utf-8")


def _write_table(table: Table, folder: Path, formats: Sequence[str], *, in_own_file: bool) -> None:
    for name, ending, text in (("csv", "csv", to_csv), ("latex", "tex", latex.to_latex)):
        if name in formats:
            folder.mkdir(exist_ok=True)
            (folder / f"{table.name}.{ending}").write_text(text(table), encoding="utf-8")
    if in_own_file:
        _write_page(folder / table.name, table.caption, to_markdown(table), formats)


def _figures(draw: "Callable[[], Sequence[style.Drawn]]", folder: Path, endings: Sequence[str]) -> list[Block]:
    images: list[Block] = []
    with style.settings():
        for drawn in draw():
            folder.mkdir(exist_ok=True)
            paths = style.save(drawn, folder, endings)
            images.append(Image(drawn.name, drawn.caption, [f"figures/{path.name}" for path in paths]))
    return images


def _present(*found: Table | None) -> list[Table]:
    return [each for each in found if each is not None]


def _former_files(out: Path) -> set[str]:
    """Files that the manifest of an earlier report names, inside ``out`` only."""
    try:
        content = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        names = {str(name) for name in content["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {name for name in names if (out / name).resolve().is_relative_to(out.resolve())}


def has_matplotlib() -> bool:
    """Whether figures can be drawn."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None
