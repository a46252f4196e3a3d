"""A page as a sequence of blocks, and the page as Markdown; other formats render the same blocks."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bench.report.main.findings import Finding
from bench.rows.counted import counted
from bench.rows.escape import markdown
from bench.rows.table import Table, to_markdown


@dataclass(frozen=True, slots=True)
class Heading:
    """A title (level 1) or heading of a section, as plain text."""

    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Text:
    """Paragraphs in Markdown: names of rows in it are escaped already."""

    text: str


@dataclass(frozen=True, slots=True)
class Findings:
    """One line a finding, with its topic and kinds of evidence."""

    findings: Sequence[Finding]


@dataclass(frozen=True, slots=True)
class Image:
    """A figure's files, relative to the page, of one figure in several formats; its caption is plain text."""

    name: str
    caption: str
    files: Sequence[str]

    def file(self, *endings: str) -> str | None:
        """The file of the first of these endings that there is."""
        by_ending = {name.rpartition(".")[2]: name for name in self.files}
        return next((by_ending[ending] for ending in endings if ending in by_ending), None)


@dataclass(frozen=True, slots=True)
class Inline:
    """A table that stands in the page."""

    table: Table


@dataclass(frozen=True, slots=True)
class Linked:
    """A table in a file of its own, to which the page links; a format without links has it in the page."""

    table: Table
    csv: bool


Block = Heading | Text | Findings | Image | Inline | Linked


def page(blocks: Sequence[Block]) -> str:
    """The page in GitHub-flavoured Markdown."""
    parts: list[str] = []
    for block in blocks:
        text = _markdown(block)
        # Links one below the other are one list.
        parts.append(text if isinstance(block, Linked) else f"\n{text}\n")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).strip() + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {markdown(text)}"
        case Text(text):
            return text
        case Findings(findings):
            return "\n".join(
                f"- **{markdown(each.topic)}** ({', '.join(each.sources)}): {markdown(each.sentence)}"
                for each in findings
            )
        case Image(name, caption, files):
            shown = block.file("png", "svg")
            image = f"![{name}]({shown})" if shown else f"[{files[0].rpartition('/')[2]}]({files[0]})"
            return f"{image}\n\n*{markdown(caption)}*"
        case Inline(table):
            return to_markdown(table)
        case Linked(table, csv):
            also = f" ([CSV](tables/{table.name}.csv))" if csv else ""
            return f"- [{markdown(table.caption)}](tables/{table.name}.md): {counted(len(table.rows), 'row')}{also}"
