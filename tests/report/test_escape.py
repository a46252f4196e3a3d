"""Names and messages that look like markup are printed as they are, in every format; names of files tell them apart."""

import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from builders.rows import a_row
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bench.report.main.findings import Finding
from bench.report.main.sections import full_report
from bench.report.render import html, latex, latex_document
from bench.report.render.document import Document, write
from bench.report.render.style import Drawn, panels, save
from bench.rows.escape import LONGEST_NAME, file_name, markdown
from bench.rows.export import as_text
from bench.rows.store import Store
from bench.rows.table import Column, Table, to_csv, to_markdown
from bench.run import terminal
from bench.run.progress import print_table
from engines.core.text import one_line

HOSTILE = [
    *("[/b]", "[red]x[/red]", "shardbench[torch]", ":smile:", "<script>alert(1)</script>", "<b>", "a|b", "`x`"),
    *("a\\|b", "``", "*x*", "_x_", "__init__", "ws_2d", "~~x~~", "[x](http://y)", "![x](y)", "[a][b]", "[a]: b"),
    *("&lt;", "&amp;", "&#60;", "$x$", "# x", "> x", "- x", "+ x", "1. x", "1) x", "===", "---", "a\nb", "a\rb"),
    *("\x1b[2J", "\\", "\\\\", "\\input{x}", "%", "#", "{}", "~", "^", "'", '"', "--", "é", "名", "=1+1"),
    *("</td>", "]]>", "http://x", "a  b", "\u202e", "$\\frac$", "\t", "<!--", "*", "[4,4,4]", "&copy"),
]
TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=30), st.text("[]()<>|`*_~$&;#\\!- \n1.x", max_size=12))
GFM = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def shown(text):
    """What a reader sees of a text on one line."""
    return one_line(" ".join(text.split()))


class Seen(HTMLParser):
    """The texts of a page, and its elements."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.elements = [], set()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.add(tag)

    def handle_data(self, data):
        self.texts.append(data)

    def cells(self):
        return [text for text in self.texts if text.strip()]


@given(TEXTS)
def test_markdown_shows_the_text_and_nothing_else(text):
    seen = Seen(GFM.render(f"before {markdown(text)} after\n"))
    assert seen.elements == {"p"}
    assert "".join(seen.texts).split() == f"before {shown(text)} after".split()


@given(TEXTS)
def test_markdown_at_the_beginning_of_a_line(text):
    seen = Seen(GFM.render(f"{markdown(text)}\n"))
    assert seen.elements <= {"p"}
    assert "".join(seen.texts).split() == shown(text).split()


@given(st.lists(TEXTS, min_size=2, max_size=2))
def test_a_table_keeps_its_cells(texts):
    row = {"a": texts[0], "b": texts[1]}
    table = Table(name="x", caption=f"of {texts[0]}", columns=[Column("a"), Column("b")], rows=[row])
    seen = Seen(GFM.render(to_markdown(table)))
    assert {"table"} <= seen.elements <= {"p", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    cells = re.findall(r"<td>(.*?)</td>", GFM.render(to_markdown(table)), re.DOTALL)
    assert ["".join(Seen(cell).texts).split() for cell in cells] == [shown(text).split() for text in texts]
    (_, read) = csv.reader(io.StringIO(to_csv(table), newline=""))
    assert read == texts


@given(TEXTS)
def test_html_shows_the_text_and_nothing_else(text):
    seen = Seen(html.body(f"before {markdown(text)} after"))
    assert seen.elements == {"p"}
    assert "".join(seen.texts).split() == f"before {shown(text)} after".split()
    whole = html.page(text, f"# {markdown(text)}\n\n| a |\n|---|\n| {markdown(text)} |\n")
    assert Seen(whole).elements == Seen(html.page("x", "# x\n\n| a |\n|---|\n| x |\n")).elements


def test_links_to_pages_of_the_report_go_to_their_html():
    links = "[a](tables/x.md) [b](https://e.org/x.md) [c](x.csv) [d](/x.md)"
    found = re.findall(r'href="([^"]*)"', html.body(links))
    assert found == ["tables/x.html", "https://e.org/x.md", "x.csv", "/x.md"]
    assert "<a" not in html.body("[a](javascript:alert)")


@given(TEXTS)
def test_latex_prints_the_text(text):
    for escaped in (latex.escape(text), latex_document.of_markdown(f"a {markdown(text)}")):
        prints(escaped)


def prints(escaped):
    """That LaTeX shows this as text: what is left without our own commands has no letter that it would read."""
    words = "textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar|textendash|ldots"
    symbols = "cdot|times|pm|leq|geq|mu|Vert|rightarrow"
    ours = rf"\\({words})\{{\}}|\$\\({symbols})\$|\$-\$|\\[&%$#_{{}}]|\{{[\[\]*]\}}|-\{{\}}-"
    left = re.sub(ours, "", escaped)
    assert not re.search(r"[\\&%$#_{}^~\[\]*\n]|--", left)


def rows_with(text):
    changes = {"model": text, "hw": text, "system": text, "reference": text, "error": text, "invalid_reason": text}
    changes |= {
        "host": text,
        "device_kind": text,
        "engine": text,
        "sweep": text,
        "ffn_layout": text,
        "peak_source": text,
    }
    measured = a_row(**changes, latency_s=1.5, versions={"jax": text}, valid=False)
    return [measured, replace(measured, point_id="b", status="failed", latency_s=None)]


@pytest.mark.thorough(every=3)
@pytest.mark.parametrize("text", HOSTILE)
def test_every_renderer_shows_hostile_rows_as_they_are(text, tmp_path, capsys):
    rows = rows_with(text)
    print_table(rows)
    printed = " ".join(capsys.readouterr().out.split())
    assert " ".join(one_line(text).split()) in printed
    assert "\x1b" not in printed
    written = write(full_report(rows, text), tmp_path, ["markdown", "html", "csv", "latex"], [])
    for name in written.files:
        assert re.fullmatch(r"[a-z0-9_./-]+", name)
    write(full_report(rows_with("plain"), "plain"), tmp_path / "plain", ["markdown", "html"], [])
    for name in ("report", "appendix"):
        report = GFM.render((tmp_path / f"{name}.md").read_text(encoding="utf-8"))
        plain = GFM.render((tmp_path / "plain" / f"{name}.md").read_text(encoding="utf-8"))
        assert Seen(report).elements == Seen(plain).elements
        assert "<script" not in (tmp_path / f"{name}.md").read_text(encoding="utf-8")
        page_of = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        assert Seen(page_of).elements == Seen((tmp_path / "plain" / f"{name}.html").read_text("utf-8")).elements
    assert len(as_text(rows, "jsonl").splitlines()) == 2


@pytest.mark.parametrize("text", ["$x$", "$\\frac$", "$", "a_b^c"])
def test_a_figure_shows_dollars(text, tmp_path):
    figure, (axis,) = panels(1)
    axis.plot([1, 10], [1, 1000], label=text)
    axis.set_yscale("log")
    axis.set_title(text)
    axis.legend()
    (path,) = save(Drawn("x", "", figure), tmp_path, ["png"])
    assert path.read_bytes().startswith(b"\x89PNG")
    assert axis.title.get_text() == text
    assert not axis.title.get_parse_math() or "$" not in text


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=2, max_size=6, unique=True))
def test_names_of_files_are_unique_and_portable(parts):
    names = [file_name(*each) for each in parts]
    assert len({name.casefold() for name in names}) == len(parts)
    for name in names:
        assert re.fullmatch(r"[a-z0-9_.-]+", name)
        assert len(name) <= LONGEST_NAME
        assert name[0] not in ".-"
        assert name[-1] != "."
        assert name.partition(".")[0] not in ("con", "nul", "aux", "prn", "com1", "lpt1")


def test_names_of_files_that_were_one():
    pairs = [(("a+b",), ("a b",)), (("a_b", "c"), ("a", "b_c")), (("Model",), ("model",)), (("名",), ("前",))]
    for one, other in pairs:
        assert file_name(*one) != file_name(*other)
    assert file_name("latency", "palm-540b", "tpu-v4", "decode") == "latency_palm-540b_tpu-v4_decode"
    assert file_name("x" * 300) != file_name("x" * 301)
    digest = file_name("a b")
    assert file_name(digest) != digest  # a name that looks like another's


def test_two_models_with_odd_names_have_a_table_each(tmp_path):
    rows = [a_row(model=name, point_id=name, latency_s=1.0, valid=True) for name in ("a+b", "a b", "a|b", "A b")]
    written = write(full_report(rows, "x"), tmp_path, ["markdown", "csv"], [])
    tables = [name for name in written.files if name.startswith("tables/latency_") and name.endswith(".csv")]
    assert len(tables) == 4
    models = set()
    for name in tables:
        with (tmp_path / name).open(encoding="utf-8", newline="") as lines:
            models |= {line["model"] for line in csv.DictReader(lines)}
    assert models == {"a+b", "a b", "a|b", "A b"}


def test_titles_captions_and_findings_are_data_too(tmp_path):
    finding = Finding("<i>", ("measured",), "[x](y) and <script>", {})
    write(Document(name="report", title="<b>", findings=[finding], sections=[]), tmp_path, ["markdown"], [])
    seen = Seen(GFM.render((tmp_path / "report.md").read_text()))
    assert seen.elements == {"h1", "h2", "ul", "li", "strong"}


def test_a_terminal_shows_brackets(capsys):
    table = terminal.table()
    table.add_column("[b]name")
    table.add_row("[/b] :smile: \x1b[2J")
    terminal.console().print(table)
    terminal.console().print("pip install shardbench[torch]")
    out = capsys.readouterr().out
    assert "[b]name" in out
    assert "[/b] :smile: \\x1b[2J" in out
    assert "shardbench[torch]" in out


def test_the_store_keeps_hostile_rows(tmp_path):
    rows = [row for text in HOSTILE for row in rows_with(text)]
    rows = [replace(row, point_id=str(number)) for number, row in enumerate(rows)]
    Store(tmp_path).append(rows)
    assert sorted(Store(tmp_path).load(), key=lambda row: int(row.point_id)) == rows
