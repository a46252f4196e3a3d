"""Imports files of other harnesses, as they are and changed."""

import json

import pytest
from builders.files_of_others import BY_NAME

from bench.cli.args import parse
from bench.cli.commands import import_
from bench.rows.store import Store
from engines.core.row import Row


@pytest.fixture
def rows_of(tmp_path):
    """Import a file with the user's words; the rows in the order of the file."""

    def call(path, words):
        line = [f"data={path}", f"results_dir={tmp_path / 'results'}", *words.split()]
        _, settings = parse("import", line, import_.KEYS, import_.VERBS)
        assert import_.main(None, settings) == 0
        return Store(tmp_path / "results").load()

    return call


@pytest.fixture
def imported(rows_of):
    """The rows of one of the files as it is."""

    def call(name: str) -> list[Row]:
        return rows_of(BY_NAME[name].path, BY_NAME[name].words)

    return call


@pytest.fixture
def changed(rows_of, tmp_path):
    """The rows of one of the files with some of its text changed."""

    def call(name: str, *changes: tuple[str, str], words: str | None = None) -> list[Row]:
        each = BY_NAME[name]
        text = each.path.read_text(encoding="utf-8")
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / each.name
        path.write_text(text, encoding="utf-8")
        return rows_of(path, each.words if words is None else words)

    return call


@pytest.fixture
def run(tmp_path):
    """Write a file's content, import it with further words, and return the store's rows."""

    def call(content, words=""):
        path = tmp_path / "file.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        line = [f"data={path}", f"results_dir={tmp_path / 'results'}", *words.split()]
        _, settings = parse("import", line, import_.KEYS, import_.VERBS)
        assert import_.main(None, settings) == 0
        return Store(tmp_path / "results").load()

    return call
