"""A report as one whole LaTeX document, with its tables in files beside it: ``pdflatex NAME.tex`` in its folder."""

from collections.abc import Sequence
from typing import Any, Final

from bench.report.render.blocks import Block, Findings, Heading, Image, Inline, Linked, Text
from bench.report.render.latex import escape

PREAMBLE: Final = (
    r"\documentclass[10pt]{article}",
    r"\usepackage[T1]{fontenc}",
    r"\usepackage[utf8]{inputenc}",
    # The usual fonts may be bitmaps, which take a while to make.
    r"\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{\IfFileExists{mathptmx.sty}{\usepackage{mathptmx}}{}}",
    r"\usepackage[a4paper,landscape,margin=15mm]{geometry}",
    r"\usepackage{array,booktabs,graphicx,longtable}",
    r"\setlength{\parindent}{0pt}",
    r"\setlength{\parskip}{4pt}",
    r"\setlength{\LTpre}{6pt}\setlength{\LTpost}{6pt}",
    r"\raggedbottom",
    # A caption without a number of its own: tables have the names that they have in the paper.
    r"\setlength{\LTcapwidth}{\linewidth}",
    r"\makeatletter",
    r"\def\LT@makecaption#1#2#3{\LT@mcol\LT@cols c{\hbox to\z@{\hss"
    r"\parbox[t]\LTcapwidth{\centering\textbf{#3}\par}\hss}}}",
    r"\makeatother",
)
HEADINGS: Final = {2: "section*", 3: "subsection*"}
FIGURE_SIZE: Final = r"width=\linewidth,height=0.55\textheight,keepaspectratio"
FIRST_FIGURE_SIZE: Final = r"width=\linewidth,height=0.4\textheight,keepaspectratio"
"""On the first page, which has findings and a table too."""


def document(title: str, pages: Sequence[Sequence[Block]]) -> str:
    """The document; each page of the report begins on a new one. Figures need a PNG or a PDF file."""
    lines = [*PREAMBLE, rf"\title{{\vspace{{-12mm}}{escape(title)}}}", r"\author{}\date{}", r"\begin{document}"]
    for place, blocks in enumerate(pages):
        lines += [r"\clearpage"] if place else [r"\maketitle\vspace{-18mm}"]
        size = FIRST_FIGURE_SIZE if len(pages) > 1 and not place else FIGURE_SIZE
        lines += [line for block in blocks for line in _lines(block, size)]
    return "\n".join([*lines, r"\end{document}"]) + "\n"


def _lines(block: Block, size: str) -> list[str]:
    match block:
        case Heading(text, level):
            return [rf"\{HEADINGS[level]}{{{escape(text)}}}"] if level in HEADINGS else []
        case Text(text):
            return [of_markdown(text)]
        case Findings(findings):
            items = [
                rf"\item \textbf{{{escape(each.topic)}}} ({', '.join(each.sources)}): {escape(each.sentence)}"
                for each in findings
            ]
            spacing = r"\setlength{\itemsep}{0pt}\setlength{\parskip}{0pt}"
            return [r"\begin{itemize}", spacing, *items, r"\end{itemize}"] if items else []
        case Image(_, caption, _):
            name = block.file("pdf", "png")
            if name is None:
                return []
            return [
                r"\begin{center}",
                rf"\includegraphics[{size}]{{{name}}}",
                "",
                rf"\emph{{\small {escape(caption)}}}",
                r"\end{center}",
            ]
        case Inline(table) | Linked(table, _):
            return [rf"\input{{tables/{table.name}.tex}}"]


def of_markdown(text: str) -> str:
    """Paragraphs and lists of Markdown as LaTeX: strong, emphasised and code text keep their look, links their text."""
    from markdown_it import MarkdownIt

    return _tokens(MarkdownIt("commonmark", {"html": False}).parse(text)).strip()


WRAPPED: Final = {
    "strong_open": r"\textbf{",
    "em_open": r"\emph{",
    "strong_close": "}",
    "em_close": "}",
    "softbreak": "\n",
    "hardbreak": "\n",
    "paragraph_close": "\n\n",
    "bullet_list_open": "\\begin{itemize}\n",
    "bullet_list_close": "\\end{itemize}\n",
    "ordered_list_open": "\\begin{enumerate}\n",
    "ordered_list_close": "\\end{enumerate}\n",
    "list_item_open": r"\item ",
}


def _tokens(tokens: Sequence[Any]) -> str:
    parts = []
    for token in tokens:
        if token.type in ("inline", "image"):
            parts.append(_tokens(token.children or []))
        elif token.type in ("text", "text_special", "code_inline", "fence", "code_block"):
            content = escape(token.content)
            parts.append(content if token.type.startswith("text") else rf"\texttt{{{content}}}")
        else:
            parts.append(WRAPPED.get(token.type, ""))
    return "".join(parts)
