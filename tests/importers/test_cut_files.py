"""A file that was cut anywhere gives rows that it gave whole, or an error: never another figure."""

from functools import cache
from pathlib import Path

import pytest
from builders.files_of_others import OTHERS, File
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.cli.args import parse
from bench.cli.commands import import_
from bench.importers.choices import Choices
from bench.importers.files import read_file
from bench.importers.to_rows import rows_of
from engines.core.errors import ShardbenchError

TEXTS = [each for each in OTHERS if not each.name.endswith(".json")]
FIGURES = ("phase", "batch_size", "input_len", "output_len", "latency_s", "tokens_per_s", "ttft_s", "tpot_s")


def figures(path: Path, words: str) -> list[tuple[object, ...]]:
    _, given_keys = parse("import", [f"data={path}", *words.split()], import_.KEYS, import_.VERBS)
    choices = Choices(given_keys)
    rows = [row for content in read_file(path) for row in rows_of(content, given_keys, choices)]
    return [tuple(getattr(row, name) for name in FIGURES) for row in rows]


def figures_or_none(path: Path, words: str) -> list[tuple[object, ...]]:
    """The figures of a file, none if it is refused."""
    try:
        return figures(path, words)
    except ShardbenchError:
        return []


@cache
def whole(each: File) -> list[tuple[object, ...]]:
    return figures(each.path, each.words)


@settings(max_examples=200, deadline=None)
@given(each=st.sampled_from(TEXTS), share=st.floats(0, 1))
def test_a_text_that_was_cut_makes_no_other_figure(tmp_path_factory, each, share):
    text = each.path.read_text(encoding="utf-8")
    path = tmp_path_factory.mktemp("cut") / each.name
    path.write_text(text[: int(share * len(text))], encoding="utf-8")
    assert set(figures_or_none(path, each.words)) <= set(whole(each))


@settings(max_examples=100, deadline=None)
@given(each=st.sampled_from([each for each in TEXTS if each.name.startswith("llama")]), data=st.data())
def test_a_cell_that_was_lost_shifts_no_column(tmp_path_factory, each, data):
    lines = each.path.read_text(encoding="utf-8").splitlines()
    number = data.draw(st.integers(0, len(lines) - 1))
    separator = "|" if each.name.endswith("md") else ","
    cells = lines[number].split(separator)
    del cells[data.draw(st.integers(0, len(cells) - 1))]
    lines[number] = separator.join(cells)
    path = tmp_path_factory.mktemp("lost") / each.name
    path.write_text("\n".join(lines), encoding="utf-8")
    assert set(figures_or_none(path, each.words)) <= set(whole(each))


@pytest.mark.parametrize("each", TEXTS, ids=lambda each: f"{each.name} {each.words[-12:]}")
def test_the_whole_file_has_rows(each):
    assert len(whole(each)) >= each.results
