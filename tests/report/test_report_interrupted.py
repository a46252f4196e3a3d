"""A report whose command is told to end: the former files or the new ones, and nothing else."""

import os
import signal

import pytest

from bench.report.render.document import place


def filled(text, names):
    def fill(aside):
        for name in names:
            (aside / name).parent.mkdir(exist_ok=True)
            (aside / name).write_text(text)

    return fill


def files_in(out):
    return {str(path.relative_to(out)): path.read_text() for path in out.rglob("*") if path.is_file()}


FORMER, NEW = ["a.md", "b.md", "tables/old.md"], ["a.md", "b.md", "tables/new.md"]


@pytest.mark.parametrize("number", range(4))
def test_a_signal_between_two_files_waits_until_all_are_in_place(tmp_path, monkeypatch, number):
    place(tmp_path, filled("former", FORMER))
    moves, replace = [], os.replace

    def moved(*paths):
        if len(moves) == number:
            signal.raise_signal(signal.SIGINT)
        moves.append(paths)
        replace(*paths)

    monkeypatch.setattr(os, "replace", moved)
    with pytest.raises(KeyboardInterrupt):
        place(tmp_path, filled("new", NEW))
    found = files_in(tmp_path)
    del found["manifest.json"]
    assert found == dict.fromkeys(NEW, "new")
    assert {path.name for path in tmp_path.iterdir()} == {"a.md", "b.md", "tables", "manifest.json"}


def test_a_signal_while_files_are_made_leaves_the_former_ones(tmp_path):
    place(tmp_path, filled("former", FORMER))
    former = files_in(tmp_path)

    def fill(aside):
        filled("new", NEW)(aside)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        place(tmp_path, fill)
    assert files_in(tmp_path) == former
