"""Tables as LaTeX (booktabs, longtable)."""

import re
from typing import Final

from bench.rows.table import Table
from engines.core.text import one_line

SPECIAL: Final = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after a line's end it would begin an argument, and a * would be one
    "]": "{]}",
    "*": "{*}",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "−": r"$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "µ": r"$\mu$",
    "‖": r"$\Vert$",
    "→": r"$\rightarrow$",
    "…": r"\ldots{}",
    "–": r"\textendash{}",
}
HEAD_WIDTH: Final = 9
"""Letters from which on a heading breaks into lines."""
MOST_COLUMNS: Final = 14
"""Columns from which on the letters are the smallest."""
MOST_TEXT: Final = 24
"""Letters from which on a column of text is set as a paragraph, so that the table stays on the page."""


def escape(text: str) -> str:
    """Plain text that LaTeX prints as it stands. A letter that its usual fonts lack becomes ``?``."""
    escaped = "".join(SPECIAL.get(letter, letter) for letter in one_line(text)).replace("--", "-{}-")
    return re.sub(r"[^\x00-\u017f]", "?", escaped)


def to_latex(table: Table) -> str:
    """A longtable that ``\\input`` takes; it needs the packages booktabs, longtable and array."""
    size = r"\tiny" if len(table.columns) > MOST_COLUMNS else r"\scriptsize"
    kinds = "".join(_alignment(table, position) for position in range(len(table.columns)))
    heads = " & ".join(_head(column.title, column.numeric) for column in table.columns) + r" \\"
    lines = [
        rf"{{{size}\setlength{{\tabcolsep}}{{3pt}}",
        rf"\begin{{longtable}}{{{kinds}}}",
        rf"\caption{{{escape(table.caption)}}}\label{{tab:{table.name}}}\\",
        r"\toprule",
        heads,
        r"\midrule",
        r"\endfirsthead",
        r"\toprule",
        heads,
        r"\midrule",
        r"\endhead",
        r"\bottomrule",
        r"\endlastfoot",
    ]
    for row in table.printed:
        lines.append(" & ".join(escape(column.show(row.get(column.key))) for column in table.columns) + r" \\")
    lines += [r"\end{longtable}", escape(table.note) + r"\par}"] if table.note else [r"\end{longtable}", "}"]
    return "\n".join(lines) + "\n"


def _head(title: str, numeric: bool) -> str:
    """A heading, in several lines where it is long: a column is to be as wide as its cells."""
    lines = [""]
    for part in re.findall(r"[^\s_/-]+[\s_/-]*", title):
        if lines[-1] and len(lines[-1]) + len(part) > HEAD_WIDTH:
            lines.append("")
        lines[-1] += part
    if len(lines) == 1:
        return escape(title)
    return rf"\shortstack[{'r' if numeric else 'l'}]{{" + r"\\".join(escape(line.rstrip()) for line in lines) + "}"


def _alignment(table: Table, position: int) -> str:
    column = table.columns[position]
    if column.numeric:
        return "r"
    longest = max((len(column.show(row.get(column.key))) for row in table.printed), default=0)
    width = 35 if len(table.columns) > MOST_COLUMNS else 55
    return rf">{{\raggedright\arraybackslash}}p{{{width}mm}}" if longest > MOST_TEXT else "l"
