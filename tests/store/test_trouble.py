"""A store that cannot take rows is told before anything runs; a row that it cannot take after all is printed."""

import errno
import io
import json
import os
import subprocess

import pytest
from builders.rows import a_row

from bench.cli.main import main
from bench.rows import atomic, probe
from bench.rows.add import add
from bench.rows.atomic import replaced, sync_folder
from bench.rows.probe import check_writable, future_part
from bench.rows.store import Store, line_of
from bench.run.save import Saver
from bench.storage.folder import Folders
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.text import shortened

WORDS = ["run", "model=palm-8b", "hw=tpu-v4", "num_chips=4", "engine=analytic", "wandb.mode=disabled"]


def fails(code):
    def call(*_, **__):
        raise OSError(code, os.strerror(code))

    return call


def no_file(folder):
    return not [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_disk_that_takes_nothing_is_told_before_anything_runs(tmp_path, monkeypatch, capsys, code):
    monkeypatch.setattr("engines.analytic.engine.AnalyticEngine.estimate", lambda *_: pytest.fail("it ran"))
    monkeypatch.setattr(atomic.os, "fsync", fails(code))
    assert main([*WORDS, f"results_dir={tmp_path / 'results'}"]) == 2
    told = capsys.readouterr()
    assert f"results_dir={tmp_path / 'results'}: cannot be written ({os.strerror(code)})" in told.err
    assert len(told.err.splitlines()) == 1
    assert told.out == ""
    assert no_file(tmp_path)


@pytest.mark.parametrize("place", ["file", "file/below", "rows is a file", "loop", "nowhere", "long", "/proc/none"])
def test_a_place_where_no_folder_can_be_is_told(tmp_path, capsys, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "rows is a file").mkdir()
    (tmp_path / "rows is a file" / "rows").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("/not/there/at/all")
    results = tmp_path / ("x" * 300 if place == "long" else place)
    assert main([*WORDS, f"results_dir={results}"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"shardbench: results_dir={shortened(str(results))}: ")
    assert len(told.splitlines()) == 1


def test_too_little_room_for_the_rows_that_are_left_is_told(tmp_path, monkeypatch):
    store = Store(tmp_path)
    monkeypatch.setattr(Folders, "free_bytes", lambda *_: 10 * probe.ROW_BYTES)
    check_writable(store, 10)
    with pytest.raises(InvalidRequest, match=r"has room for 0\.04 MB, and about 0\.05 MB are needed for 11 rows"):
        check_writable(store, 11)
    assert no_file(tmp_path)
    assert store.load() == []


def test_a_store_that_holds_every_answer_need_not_be_writable(tmp_path, monkeypatch, capsys):
    words = [*WORDS, f"results_dir={tmp_path}", "print=none"]
    assert main(words) == 0
    monkeypatch.setattr(atomic.os, "fsync", fails(errno.EROFS))
    assert main(words) == 0
    assert main([*words, "batch_size=7"]) == 2
    assert "Read-only file system" in capsys.readouterr().err


def test_a_real_file_system_that_fills_up_loses_nothing(tmp_path, capsys):
    """Two rows fit, the third does not; what was printed is brought in once there is room."""
    disk, printed = tmp_path / "disk", tmp_path / "printed"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", disk], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting needs more rights than this process has")
    try:
        saver = Saver(Store(disk), stdout_taken=False)
        rows = [a_row(batch_size=number, error="x" * 10000) for number in (1, 2, 3)]
        for row in rows:
            assert saver.save([row]) == [row]
        saver.close()
        assert saver.unsaved == 1
        assert Store(disk).load() == rows[:2]
    finally:
        subprocess.run(["umount", disk], check=True)
    told = capsys.readouterr()
    assert "No space left on device" in told.err
    assert "shardbench results add data=FILE" in told.err
    printed.write_text(told.out)
    add(Store(tmp_path / "other"), [printed])
    assert Store(tmp_path / "other").load() == rows[2:]


@pytest.fixture
def fills_up(monkeypatch):
    """The disk of a run is full as soon as the run has tried it."""

    def call(_self, _rows):
        raise InvalidRequest("results_dir", "here", "cannot be written (No space left on device)", "free some space")

    monkeypatch.setattr(Store, "append", call)


@pytest.mark.parametrize("how", ["table", "none", "json"])
def test_rows_that_cannot_be_stored_are_printed_and_can_be_added(tmp_path, fills_up, monkeypatch, capsys, how):
    store, printed = tmp_path / "results", tmp_path / "printed"
    assert main([*WORDS, "batch_size=[1,2]", f"print={how}", f"results_dir={store}"]) == 3
    told = capsys.readouterr()
    stream = "stderr" if how == "json" else "stdout"
    assert f"2 rows not stored but printed on {stream} as JSON" in told.err
    printed.write_text(told.err if how == "json" else told.out)
    monkeypatch.undo()
    assert main(["results", "add", f"data={printed}", f"results_dir={store}"]) == 0
    assert "2 rows added" in capsys.readouterr().out
    assert [row.batch_size for row in Store(store).load()] == [1, 2]
    assert main([*WORDS, "batch_size=[1,2]", "print=json", f"results_dir={store}"]) == 0
    assert "2 of them already stored" in capsys.readouterr().err


def test_a_stream_that_keeps_nothing_is_not_printed_on(tmp_path, fills_up, monkeypatch):
    kept, full = io.StringIO(), io.StringIO()
    monkeypatch.setattr(full, "write", fails(errno.ENOSPC))
    with open(os.devnull, "w", encoding="utf-8") as thrown_away:
        for stdout in (thrown_away, full, None):
            monkeypatch.setattr("sys.stdout", stdout)
            monkeypatch.setattr("sys.stderr", kept)
            Saver(Store(tmp_path), stdout_taken=False).save([a_row(batch_size=5)])
        monkeypatch.setattr("sys.stderr", None)
        with pytest.raises(ShardbenchError, match="neither stdout nor stderr"):
            Saver(Store(tmp_path), stdout_taken=False).save([a_row()])
        monkeypatch.undo()
    lines = [line for line in kept.getvalue().splitlines() if line.startswith("{")]
    assert [json.loads(line)["batch_size"] for line in lines] == [5, 5, 5]


def test_a_value_that_json_cannot_hold_costs_its_row_and_no_other(tmp_path):
    saver = Saver(Store(tmp_path), stdout_taken=False)
    good, bad = saver.save([a_row(batch_size=1), a_row(batch_size=2, latency_s=float("nan"))])
    assert (good.status, bad.status, bad.latency_s) == ("ok", "failed", None)
    assert bad.error.startswith("latency_s=nan: cannot be stored as JSON")
    assert Store(tmp_path).load() == [good, bad]
    assert saver.unsaved == 0


def test_added_rows_are_those_of_the_file_once_and_all_or_none(tmp_path, capsys):
    store, printed = Store(tmp_path / "results"), tmp_path / "printed"
    rows = [a_row(batch_size=number) for number in (1, 2)]
    store.append(rows[:1])
    printed.write_text("a table\n" + "".join(f"{line_of(row)}\n" for row in [*rows, rows[1]]) + "3 points\n")
    assert main(["results", "add", f"data={printed}", f"results_dir={store.results_dir}", "print=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["added"], found["already_stored"], found["other_lines"]) == (1, 2, 2)
    assert sorted(row.batch_size for row in store.load()) == [1, 2]
    printed.write_text(f"{line_of(a_row(batch_size=3))}\n{line_of(rows[0])[:-9]}\n")
    assert main(["results", "add", f"data={printed}", f"results_dir={store.results_dir}"]) == 2
    assert "line 2 is truncated or not JSON" in capsys.readouterr().err
    assert sorted(row.batch_size for row in store.load()) == [1, 2]


def test_an_added_row_is_no_newer_than_what_was_measured_since(tmp_path):
    store, printed = Store(tmp_path / "results"), tmp_path / "printed"
    printed.write_text(line_of(a_row(batch_size=1)) + "\n")
    store.append([a_row(batch_size=2, created_at="2026-01-02T05:00:00.000+00:00")])
    add(store, [printed])
    assert [row.batch_size for row in store.load()] == [1, 2]


@pytest.mark.parametrize("content", [None, "", "a table\n", '{"model": "tiny"}\n', "\x00"])
def test_a_file_without_rows_is_refused(tmp_path, capsys, content):
    printed = tmp_path / "printed"
    if content is not None:
        printed.write_text(content)
    assert main(["results", "add", f"data={printed}", f"results_dir={tmp_path / 'results'}"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"shardbench: data={printed}: ")
    assert len(told.splitlines()) == 1
    assert main(["results", "add", f"results_dir={tmp_path / 'results'}"]) == 2
    assert not (tmp_path / "results").exists()


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    for name, code in (("fsync", errno.EIO), ("fsync", errno.ENOSPC)):
        with monkeypatch.context() as patch:
            patch.setattr(atomic.os, name, fails(code))
            with pytest.raises(InvalidRequest, match="cannot be written"):
                Store(tmp_path).append([a_row()])
        assert no_file(tmp_path)
    # A file gets its name by a link or, where the system cannot do that, by a rename.
    monkeypatch.setattr(atomic.os, "link", fails(errno.EPERM))
    monkeypatch.setattr("pathlib.Path.rename", fails(errno.EPERM))
    with pytest.raises(InvalidRequest, match="Operation not permitted"):
        Store(tmp_path).append([a_row()])
    assert no_file(tmp_path)


def test_a_file_system_that_flushes_no_folders_is_no_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic.os, "fsync", fails(errno.EINVAL))
    sync_folder(tmp_path)
    monkeypatch.setattr(atomic.os, "fsync", fails(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        sync_folder(tmp_path)


def test_rows_that_cannot_be_listed_are_not_taken_for_none(tmp_path, monkeypatch):
    Store(tmp_path).append([a_row()])
    monkeypatch.setattr("pathlib.Path.iterdir", fails(errno.EACCES))
    with pytest.raises(InvalidRequest, match=r"cannot be read \(Permission denied\)"):
        Store(tmp_path).load()


def test_a_file_from_the_future_is_told_until_something_newer_is_stored(tmp_path):
    store = Store(tmp_path)
    store.append([a_row(batch_size=1)])
    assert future_part(store) is None
    (part,) = store.parts()
    part.rename(part.with_name("29990101T000000000000-1-abcd-n1.jsonl"))
    assert "is dated" not in future_part(store)
    assert "dated 2999-01-01 00:00:00 UTC, which is after now" in future_part(store)
    Store(tmp_path).append([a_row(batch_size=2)])
    assert future_part(store) is None
    assert [row.batch_size for row in store.load()][-1] == 2


def test_a_name_as_long_as_a_name_may_be_can_be_replaced(tmp_path):
    out = tmp_path / f"{'x' * 250}.csv"
    with replaced(out) as temporary:
        assert temporary.suffix == ".csv"
        temporary.write_text("1")
    assert out.read_text() == "1"
    assert list(tmp_path.iterdir()) == [out]
