"""Rows of several stores in one: each once, in the order in which they were made."""

import json

import pytest
from builders.rows import a_row

from bench.cli.main import main
from bench.rows.store import Store


def row(number, minute):
    return a_row(point_id=f"{number:016x}", created_at=f"2026-01-01T00:{minute:02}:00+00:00", latency_s=float(minute))


def merge(capfd, store, *others):
    assert main(["results", "merge", f"results_dir={store}", f"data=[{','.join(map(str, others))}]", "print=json"]) == 0
    said = json.loads(capfd.readouterr().out)
    return said["added"], said["already_stored"]


def test_every_row_is_there_once_and_the_newest_stands(tmp_path, capfd):
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    shared = row(1, 5)
    Store(one).append([shared, row(2, 9)])
    Store(two).append([shared, row(2, 1)])
    Store(two).append([row(3, 2)])
    Store(three).append([row(2, 4)])
    assert merge(capfd, one, two, three) == (3, 1)
    assert merge(capfd, one, two, three) == (0, 4)
    rows = Store(one).load()
    assert sorted((each.point_id[-1], each.latency_s) for each in rows) == [
        ("1", 5.0),
        ("2", 1.0),
        ("2", 4.0),
        ("2", 9.0),
        ("3", 2.0),
    ]
    assert Store(one).latest()[f"{2:016x}"].latency_s == 9.0
    assert len(Store(two).load()) == 3


def test_a_store_that_did_not_exist_gets_all(tmp_path, capfd):
    Store(tmp_path / "old").append([row(1, 1), row(2, 2)])
    assert merge(capfd, tmp_path / "new", tmp_path / "old") == (2, 0)
    assert Store(tmp_path / "new").load() == Store(tmp_path / "old").load()


def test_a_broken_store_is_named_and_nothing_is_stored(tmp_path, capfd):
    Store(tmp_path / "good").append([row(1, 1)])
    part = Store(tmp_path / "bad").append([row(2, 2), row(3, 3)])
    part.write_text(part.read_text()[:-50])
    words = ["results", "merge", f"results_dir={tmp_path / 'all'}", f"data=[{tmp_path / 'good'},{tmp_path / 'bad'}]"]
    assert main(words) == 2
    assert "repair=true" in capfd.readouterr().err
    assert Store(tmp_path / "all").load() == []


@pytest.mark.parametrize(
    ("words", "told"), [([], "data=: is required for merge"), (["data=nowhere"], "data=nowhere: is no folder")]
)
def test_what_cannot_be_merged_is_one_sentence(tmp_path, capfd, words, told):
    assert main(["results", "merge", f"results_dir={tmp_path / 'all'}", *words]) == 2
    assert told in capfd.readouterr().err
