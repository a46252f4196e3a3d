"""``shardbench results``: broken files are told, mended and never deleted; exports hold what the rows hold."""

import csv
import io
import json
import os
import subprocess
import sys
import time

import pandas as pd
import pytest
from builders.rows import a_row

from bench.cli.main import main
from bench.rows.repair import compact, inspect
from bench.rows.store import Store, read_part
from bench.storage.folder import TEMPORARY


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "results")
    store.append([a_row(batch_size=1), a_row(batch_size=2, status="oom", error="too big")])
    later = "2026-01-03T00:00:00.000+00:00"
    store.append(
        [a_row(created_at=later, batch_size=3, source="predicted", engine="analytic", latency_s=0.5, point_id="other")]
    )
    return store


def results(store, *words):
    return main(["results", *words, f"results_dir={store.results_dir}"])


def lines_of(store):
    return sorted(line for part in store.parts() for line in part.read_text().splitlines())


def test_check_counts_what_is_there(store, capsys):
    assert results(store, "check", "print=json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["files"], found["rows"], found["broken"]) == (2, 3, [])
    counts = {(each["source"], each["status"]): each["rows"] for each in found["by_source_and_status"]}
    assert counts == {("measured", "oom"): 1, ("measured", "ok"): 1, ("predicted", "ok"): 1}


def test_check_of_nothing_is_no_fault(tmp_path, capsys):
    assert results(Store(tmp_path), "check") == 0
    assert "0 valid rows" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [["list"], ["check"], ["export"], ["compact"], ["rekey"], ["dashboard"]], ids=lambda words: words[0]
)
def test_a_store_that_is_not_there_is_a_mistyped_one(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    command = words if words == ["dashboard"] else ["results", *words]
    assert main([*command, "results_dir=resutls"]) == 2
    assert "results_dir=resutls: does not exist" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_broken_file_is_told_and_left_then_mended_and_kept(store, capsys):
    part = store.parts()[0]
    whole = part.read_bytes()
    part.write_bytes(whole[:-40])
    assert results(store, "check") == 1
    out = capsys.readouterr().out
    assert f"broken: {part} line 2: is truncated or not JSON" in out
    assert "repair=true" in out
    assert part.read_bytes() == whole[:-40]

    assert results(store, "check", "repair=true") == 0
    assert (store.results_dir / "broken" / part.name).read_bytes() == whole[:-40]
    assert not part.exists()
    assert sorted(row.batch_size for row in store.load()) == [1, 3]
    assert results(store, "check") == 0


def test_two_broken_files_of_one_name_are_both_kept(store):
    part = store.parts()[0]
    for text in ("one", "two"):
        part.write_text(text)
        assert results(store, "check", "repair=true") == 0
    kept = sorted(path.read_text() for path in (store.results_dir / "broken").iterdir())
    assert kept == ["one", "two"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("latency_s", "fast"),
        ("num_chips", 1.5),
        ("num_chips", True),
        ("valid", 1),
        ("samples_s", 3),
        ("model", None),
        ("source", "guessed"),
        ("status", "fine"),
    ],
)
def test_a_value_of_a_wrong_kind_is_a_fault(store, key, value):
    store.write_part([json.dumps(a_row().to_dict() | {key: value})])
    (fault,) = inspect(store).faults
    assert fault.problem.startswith((f"{key}={value} must be of type ", f"{key}={value} is not known"))


def test_a_whole_number_may_stand_for_a_fraction(store):
    store.write_part([json.dumps(a_row().to_dict() | {"latency_s": 2})])
    assert inspect(store).faults == []


def test_only_the_leavings_of_the_dead_are_removed(store, capsys):
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    ages = {gone.pid: 120, os.getpid(): 120}
    for pid, age in ages.items():
        path = store.rows_dir / f"20260102T000000000000-{pid}-abcd-n1.jsonl{TEMPORARY}"
        path.write_text("{")
        os.utime(path, (time.time() - age, time.time() - age))
    fresh = store.rows_dir / f"20260102T000000000000-{gone.pid}-ffff-n1.jsonl{TEMPORARY}"
    fresh.write_text("{")
    old = store.rows_dir / f"20260102T000000000000-{os.getpid()}-eeee-n1.jsonl{TEMPORARY}"
    old.write_text("{")
    os.utime(old, (0, 0))
    assert results(store, "check") == 0
    assert capsys.readouterr().out.count("unfinished file of a writer that died") == 2
    assert results(store, "check", "repair=true") == 0
    left = sorted(path.name.split("-")[1:3] for path in store.rows_dir.glob(f"*{TEMPORARY}"))
    assert left == sorted([[str(os.getpid()), "abcd"], [str(gone.pid), "ffff"]])
    assert len(store.load()) == 3


def test_compact_leaves_one_file_with_every_line(store, capsys):
    before = lines_of(store)
    assert results(store, "compact") == 0
    assert "3 rows merged from 2 files" in capsys.readouterr().out
    assert len(store.parts()) == 1
    assert lines_of(store) == before
    assert results(store, "compact") == 0
    assert lines_of(store) == before


def test_compact_of_a_broken_store_changes_nothing(store, capsys):
    store.parts()[1].write_text("{")
    before = {path.name: path.read_bytes() for path in store.parts()}
    assert results(store, "compact") == 2
    assert "results check repair=true" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in store.parts()} == before


def test_a_compaction_that_is_cut_off_loses_and_doubles_nothing(store, monkeypatch):
    rows = store.load()
    removed = []

    def dies(path, **_):
        if removed:
            raise KeyboardInterrupt
        removed.append(path)
        os.unlink(path)

    monkeypatch.setattr("pathlib.Path.unlink", dies)
    with pytest.raises(KeyboardInterrupt):
        compact(store)
    monkeypatch.undo()
    assert len(store.parts()) == 2
    assert sum(1 for part in store.parts() for _ in read_part(part)) == 4
    assert store.load() == rows
    compact(store)
    assert lines_of(store) == sorted(json.dumps(row.to_dict()) for row in rows)


def test_list_shows_the_newest_of_each_point_and_filters(store, capsys):
    assert results(store, "list", "print=json") == 0
    assert [json.loads(line)["batch_size"] for line in capsys.readouterr().out.splitlines()] == [2, 3]
    assert results(store, "list", "history=true", "print=json", "source=[measured,published]") == 0
    assert [json.loads(line)["batch_size"] for line in capsys.readouterr().out.splitlines()] == [1, 2]
    assert results(store, "list", "source=predicted", "model=tiny") == 0
    assert "analytic" in capsys.readouterr().out
    assert results(store, "model=palm-8b") == 0
    assert "0 rows" in capsys.readouterr().out


def test_csv_holds_every_key_in_si_units(store, capsys):
    assert results(store, "export", "history=true") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(rows[0]) == list(a_row().to_dict())
    assert [row["batch_size"] for row in rows] == ["1", "2", "3"]
    assert rows[2]["latency_s"] == "0.5"
    assert rows[0]["latency_s"] == ""
    assert json.loads(rows[0]["versions"]) == {}


def test_parquet_and_jsonl_and_markdown(store, tmp_path, capsys):
    pytest.importorskip("pyarrow")
    assert results(store, "export", "format=parquet", f"out={tmp_path / 'deep' / 'rows.parquet'}") == 0
    frame = pd.read_parquet(tmp_path / "deep" / "rows.parquet")
    assert frame.latency_s.tolist()[1] == 0.5
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["rows.parquet"]
    capsys.readouterr()
    assert results(store, "export", "format=jsonl") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[1])["latency_s"] == 0.5
    assert results(store, "export", "format=markdown", "source=predicted") == 0
    assert "| latency (s) |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("export", "format=parquet"), "out="),
        (("export", "format=xml"), "format=xml"),
        (("export", "out=/proc/none/rows.csv"), "out=/proc/none/rows.csv"),
        (("check", "repair=perhaps"), "repair=perhaps"),
        (("chek",), "chek"),
        (("list", "modle=tiny"), "did you mean model"),
    ],
)
def test_wrong_questions_are_one_line(store, capsys, words, told):
    assert results(store, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
