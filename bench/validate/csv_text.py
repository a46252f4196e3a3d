"""The lines of a CSV file as spreadsheets and programs write it, without a meaning yet."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.importers.text import text_of
from engines.core.errors import ShardbenchError

DELIMITERS: Final = (",", ";", "\t")
SEPARATOR_LINE: Final = re.compile(r"sep=(.)")
"""A first line by which spreadsheets are told the delimiter."""


@dataclass(frozen=True, slots=True)
class CsvLine:
    """One line: its number in the file and its cells by column, or the problem for which it has none."""

    number: int
    cells: Mapping[str, str]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class CsvText:
    """The header and the lines of a file."""

    header: Sequence[str]
    lines: Sequence[CsvLine]


def read_csv(path: Path) -> CsvText:
    """The cells of a file with a header, stripped; empty lines are left out.

    The delimiter is a comma, a semicolon or a tab: what the header has most of. A byte order mark, either line end
    and packed files are read. With semicolons or tabs a decimal comma is a point, as spreadsheets write numbers in many
    countries.

    Raises:
        ShardbenchError: it cannot be read, is no text or no CSV, or a column stands twice.
    """
    try:
        text = text_of(path)
    except OSError as error:
        raise ShardbenchError(f"cannot be read ({error.strerror}); use a file that can") from None
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    skipped = next((number for number, line in enumerate(lines) if line.strip()), 0)
    told = SEPARATOR_LINE.fullmatch(lines[skipped].strip(" ")) if lines else None
    if told is not None:
        skipped += 1
    rest = lines[skipped:]
    delimiter = told[1] if told is not None else max(DELIMITERS, key=(rest[0] if rest else "").count)
    # With the line ends that cells in quotes may hold.
    reader = csv.reader((f"{line}\n" for line in rest), delimiter=delimiter, strict=True, skipinitialspace=True)
    header: list[str] = []
    found: list[CsvLine] = []
    read = 0
    try:
        for cells in reader:
            number, read = skipped + read + 1, reader.line_num
            stripped = [cell.strip() for cell in cells]
            if not any(stripped):
                continue
            if not header:
                header = stripped
            else:
                found.append(_line(number, stripped, header, decimal_comma=delimiter != ","))
    except csv.Error as error:
        raise ShardbenchError(f"line {skipped + read + 1} is not valid CSV ({error}); fix its syntax") from None
    if not header:
        raise ShardbenchError("is empty; add a header and rows")
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise ShardbenchError(f"column {twice} stands twice; remove one")
    return CsvText(header, found)


def _line(number: int, cells: list[str], header: Sequence[str], *, decimal_comma: bool) -> CsvLine:
    while len(cells) > len(header) and not cells[-1]:
        cells = cells[:-1]  # spreadsheets end lines with the delimiters of empty columns
    if len(cells) != len(header):
        problem = f"has {len(cells)} cells and the header has {len(header)}; quote cells that contain the delimiter"
        return CsvLine(number, {}, problem)
    if decimal_comma:
        cells = [re.sub(r"^(-?\d+),(\d+)$", r"\1.\2", cell) for cell in cells]
    return CsvLine(number, {name: cell for name, cell in zip(header, cells, strict=True) if name})
