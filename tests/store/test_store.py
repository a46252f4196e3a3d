"""Rows written are rows read, whoever writes and whenever it dies."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from builders.rows import a_row
from hypothesis import given

from bench.rows.store import Store, frame_of, read_part
from bench.storage.folder import TEMPORARY
from engines.core.errors import InvalidRequest, ShardbenchError

WRITER = """
import itertools, sys
from builders.rows import a_row
from bench.rows.store import Store
store = Store(sys.argv[1])
for number in itertools.count():
    store.append([a_row(point_id=f"{sys.argv[2]}-{number}-{each}", error="x" * 20000) for each in range(3)])
    print(number, flush=True)
"""
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def write_many(results_dir, writer):
    store = Store(results_dir)
    for number in range(20):
        store.append([a_row(point_id=f"{writer}-{number}")])


def test_a_missing_store_is_empty_and_stays_missing(tmp_path):
    store = Store(tmp_path / "none")
    assert store.load() == []
    assert store.latest() == {}
    assert len(store.frame()) == 0
    assert not store.results_dir.exists()


def test_what_is_written_is_read(tmp_path):
    row = a_row(mesh_shape=[2, 2, 2], samples_s=[0.25, 0.5], versions={"jax": "1"}, details={"a": {"b": [1, None]}})
    path = Store(tmp_path).append([row])
    assert path.parent == tmp_path / "rows"
    assert Store(tmp_path).load() == [row]


@given(TEXT, st.lists(FLOATS, max_size=4), st.dictionaries(TEXT, st.one_of(TEXT, FLOATS, st.none()), max_size=3))
def test_any_text_and_number_comes_back(tmp_path_factory, error, samples, details):
    store = Store(tmp_path_factory.mktemp("store"))
    row = a_row(error=error, samples_s=samples, details=details)
    store.append([row])
    assert store.load() == [row]


def test_line_breaks_of_other_alphabets_do_not_end_a_row(tmp_path):
    row = a_row(error="one\u2028two\x85three\x0cfour")
    line = json.dumps(row.to_dict(), ensure_ascii=False)
    store = Store(tmp_path)
    store.write_part([line])
    assert store.load() == [row]


def test_rows_come_in_the_order_in_which_they_were_made(tmp_path):
    store = Store(tmp_path)
    times = ["2026-01-03T00:00:00.000+00:00", "2026-01-01T00:00:00.000+00:00", "2026-01-02T00:00:00.000+00:00"]
    for number, created_at in enumerate(times):
        store.append([a_row(created_at=created_at, batch_size=number + 1)])
    assert [row.batch_size for row in store.load()] == [2, 3, 1]
    assert list(store.frame().batch_size) == [2, 3, 1]
    assert store.latest()[a_row().point_id].batch_size == 1


def test_the_frame_has_types_that_can_be_reckoned_with(tmp_path):
    store = Store(tmp_path)
    store.append([a_row(latency_s=2.0, n=3, valid=True, samples_s=[1.0, 2.0, 3.0]), a_row(batch_size=8)])
    frame = store.frame()
    assert list(frame.columns) == list(a_row().to_dict())
    assert frame.latency_s.dtype == "float64"
    assert np.isnan(frame.latency_s[1])
    assert frame.n.dtype == "Int64"
    assert frame.n.sum() == 3
    assert frame.valid.dtype == "boolean"
    assert frame.created_at.dt.year.tolist() == [2026, 2026]
    assert str(frame.created_at.dt.tz) == "UTC"
    assert frame.samples_s[0] == [1.0, 2.0, 3.0]
    assert frame.error.isna().all()
    assert isinstance(frame.model.dtype, pd.StringDtype)
    assert frame.dtypes.equals(frame_of([]).dtypes)


def test_several_writers_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(tmp_path, name)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert sorted(Store(tmp_path).latest()) == sorted(f"{name}-{number}" for name in "abcd" for number in range(20))


def test_a_writer_killed_again_and_again_leaves_whole_files(tmp_path):
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = []
    for life in range(6):
        words = [sys.executable, "-c", WRITER, str(tmp_path), str(life)]
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
        ) as writer:
            writer.stdout.readline()
            time.sleep(0.003 * life)
            os.kill(writer.pid, signal.SIGKILL)
            told = [0, *(int(line) for line in writer.stdout if line.endswith("\n"))]
        done += [f"{life}-{number}-{each}" for number in range(max(told) + 1) for each in range(3)]
    rows = Store(tmp_path).load()
    assert set(done) <= {row.point_id for row in rows}
    assert len(rows) % 3 == 0


def test_a_dead_writers_leavings_are_not_read(tmp_path):
    store = Store(tmp_path)
    part = store.append([a_row()])
    part.with_name(f"20260102T000000000000-1-abcd-n2.jsonl{TEMPORARY}").write_text('{"half":')
    assert len(store.load()) == 1
    assert list(store.rows_dir.glob("*.jsonl")) == [part], "nor does anything else take them for rows"


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_file_cut_anywhere_is_named_and_left(tmp_path, kept):
    store = Store(tmp_path)
    part = store.append([a_row(), a_row(batch_size=8)])
    whole = part.read_bytes()
    cut = whole[: len(whole) // 2 + kept] if kept >= 0 else whole[: whole.index(b"\n") + 1]
    part.write_bytes(cut)
    with pytest.raises(ShardbenchError) as caught:
        store.load()
    assert f"{part} line 2" in str(caught.value)
    assert f"shardbench results check repair=true results_dir={tmp_path}" in str(caught.value)
    assert part.read_bytes() == cut
    assert list(store.rows_dir.iterdir()) == [part]


@given(st.integers(0, 2000))
def test_no_cut_goes_unnoticed(tmp_path_factory, length):
    store = Store(tmp_path_factory.mktemp("store"))
    part = store.append([a_row(), a_row(batch_size=8), a_row(batch_size=2)])
    whole = part.read_bytes()
    part.write_bytes(whole[: length * len(whole) // 2001])
    if part.read_bytes() + b"\n" == whole:
        return  # only the last line's end is gone: every row is there
    with pytest.raises(ShardbenchError):
        store.load()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("nonsense", "not JSON"),
        ("[1, 2]", "is not a row"),
        ("", "not JSON"),
        ('{"schema_version": 99}', "newer shardbench"),
        ('{"schema_version": 1}', "missing key"),
        ('{"model": "tiny"}', "schema_version=None"),
        (json.dumps(a_row().to_dict() | {"latency": 3}), "unknown key latency"),
        (json.dumps(a_row().to_dict() | {"latency_s": float("nan")}), "NaN"),
    ],
)
def test_what_is_no_row_is_one_sentence(tmp_path, line, told):
    store = Store(tmp_path)
    part = store.write_part([json.dumps(a_row().to_dict()), line])
    with pytest.raises(ShardbenchError, match=told) as caught:
        store.load()
    assert f"{part.name} line 2" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_one_sentence(tmp_path):
    store = Store(tmp_path)
    part = store.append([a_row()])
    part.write_bytes(b"\xff\xfe\x00" * 10)
    with pytest.raises(ShardbenchError, match="line 1"):
        store.load()


def test_a_folder_in_place_of_a_file_is_one_sentence(tmp_path):
    store = Store(tmp_path)
    (store.rows_dir / "odd.jsonl").mkdir(parents=True)
    with pytest.raises(ShardbenchError, match="cannot be read"):
        store.load()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.int64(3), {1, 2}])
def test_a_value_that_json_cannot_hold_names_its_key_and_writes_nothing(tmp_path, value):
    with pytest.raises(ShardbenchError, match="latency_s=") as caught:
        Store(tmp_path).append([a_row(), a_row(latency_s=value)])
    assert "engine=jax" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_a_file_or_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidRequest, match=r"results_dir=.*is a file"):
        Store(tmp_path / "file")
    with pytest.raises(InvalidRequest, match=r"results_dir=.*cannot be written"):
        Store(tmp_path / "file" / "below").append([a_row()])
    with pytest.raises(InvalidRequest, match=r"results_dir=.*cannot be written"):
        Store("/proc/nowhere").append([a_row()])


def test_a_row_that_stands_in_two_files_counts_once(tmp_path):
    store = Store(tmp_path)
    part = store.append([a_row(), a_row(batch_size=8)])
    store.write_part(line for _, line, _, _ in read_part(part))
    assert len(store.load()) == 2


def test_files_merged_while_they_are_read_are_read_anew(tmp_path, monkeypatch):
    store = Store(tmp_path)
    parts = [store.append([a_row(batch_size=size)]) for size in (1, 2)]
    lists = iter([[*parts, store.rows_dir / "gone.jsonl"]])
    listed = Store.parts
    monkeypatch.setattr(Store, "parts", lambda self: next(lists, None) or listed(self))
    assert [row.batch_size for row in store.load()] == [1, 2]


def test_what_others_stored_since_the_last_look_is_found_once(tmp_path):
    store, other = Store(tmp_path), Store(tmp_path)
    assert other.rows_of_others() == []
    store.append([a_row(point_id="a" * 16)])
    assert [row.point_id for row in other.load()] == ["a" * 16]
    assert other.rows_of_others() == []
    other.append([a_row(point_id="b" * 16)])
    part = store.append([a_row(point_id="c" * 16), a_row(point_id="d" * 16)])
    part.write_text(part.read_text()[:-20])  # a broken line is left to `results check`
    assert [row.point_id for row in other.rows_of_others()] == ["c" * 16]
    assert other.rows_of_others() == []
